"""What the commands stand on: the options they share, what a person sees, interrupts, recipes from flags."""
