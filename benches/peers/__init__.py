"""The peer bench: Reticle and what people would use instead, on the same images and cores."""
