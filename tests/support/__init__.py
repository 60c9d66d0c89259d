"""What several kinds of test share: real services, real runs, and ways to look at them."""
