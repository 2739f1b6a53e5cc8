"""Several processes as one service: who starts them, restarts them, and speaks for them all."""
