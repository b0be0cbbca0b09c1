"""One SDXL model, loaded from its files and taken apart: no pipeline stands around it."""
