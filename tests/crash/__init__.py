"""Real processes under load, killed, stopped, cut off and robbed of their disk; and the books kept outside of them."""
