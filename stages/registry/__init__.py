"""Who becomes champion: the gate, promotion, and the model card."""
