"""What a fixed random subspace costs a training, at equal trainable parameters.

Sixteen ways to spend one budget, {random, informed by activations, informed by gradients, from W}
subspaces × {of low rank, of high rank}, on an encoder and a language model, compared by the loss on
held-out items, paired on seeds. The question, what decides it, and what was expected stand in
`experiments/configs/subspace.toml`, committed before the first training.
"""
