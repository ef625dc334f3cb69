"""How each experiment is told: figures, tables and sentences."""
