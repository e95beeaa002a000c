"""What things cost and what one gets for it, measured on this machine."""
