"""What every perturbation does, whatever holds the tensors: names, families of models, the steps, the refusals."""
