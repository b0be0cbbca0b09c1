"""How much: limits, windows and the store that counts against them."""
