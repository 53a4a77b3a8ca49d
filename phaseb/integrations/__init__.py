"""What other trainers load to use the weights of an export."""
