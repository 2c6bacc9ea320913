"""The learned dynamics: ensemble, normalisation, transition buffer, early stopping, training."""
