"""Generation engines: what writes the answers that are evaluated.

Each takes the same prompts, and returns the tokens of each one's continuation. ``builtin`` is the
yardstick, token by token with a cache; ``by_transformers`` calls the library's own ``generate``;
``by_vllm`` saves the weights, and lets vLLM write in a process of its own, ``vllm_worker``.
``prompts`` says what is continued and which prompts may go together, ``choosing`` how a token is
chosen.

Greedy answers are the same, as far as rounding allows: every engine adds the same numbers in
another order, and where two tokens are almost equally likely, either may be the first. A sample
is the same for ``builtin`` and ``by_transformers``, which draw alike; vLLM draws by the same seeds,
one for each prompt, but other numbers.
"""
