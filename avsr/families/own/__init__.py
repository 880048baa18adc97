"""Our own family: the FastConformer audio encoder, the visual encoder, the fusion transformer and the CTC heads."""
