"""The MNIST auxiliary-logit experiment: data, models, population training and protocol."""
