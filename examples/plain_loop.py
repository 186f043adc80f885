"""Two streams in a training loop of your own: no Trainer, any model that gives logits.

python examples/plain_loop.py
"""

import torch

import amnesis
from amnesis import Scores, Streams

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Embedding(50, 16), torch.nn.Linear(16, 50))
forget, retain = torch.randint(0, 25, (4, 12)), torch.randint(25, 50, (4, 12))
reference = [model(batch).detach() for batch in (forget, retain)]

objective = amnesis.create("objective", "npo", beta=0.1)
regularizer = amnesis.create("regularizer", "kl")
streams = Streams(model.named_parameters(), amnesis.create("combiner", "sago"))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

for _ in range(30):
    with streams.forget():
        scores = Scores.from_logits(model(forget), forget, ref_logits=reference[0])
        forget_loss = objective.loss(scores.logps, scores.mask, scores.ref_logps)
        forget_loss.backward()
    with streams.retain(last=True):
        scores = Scores.from_logits(model(retain), retain, ref_logits=reference[1])
        retain_loss = regularizer.loss(scores)
        retain_loss.backward()
    streams.combine()
    optimizer.step()
    optimizer.zero_grad()

print(f"forget loss {forget_loss:.4f}, divergence on what stays {retain_loss:.6f}")
