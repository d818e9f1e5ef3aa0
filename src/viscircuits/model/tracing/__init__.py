"""The steps of `viscircuits.model.trace`: states of a model, its export, kernels, outputs, and what goes wrong."""
