"""What things cost. Read the ratios of one run: machines are noisy."""
