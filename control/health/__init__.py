"""Active health checks: one prober asks every endpoint, a judge decides, the scoreboard tells the workers."""
