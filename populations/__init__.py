"""Populations of models: spread over devices, trained as one program. Below all other rooms."""
