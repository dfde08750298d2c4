#!/usr/bin/env python3
"""The recipe of experiments/ferplus48.lua in plain PyTorch: the peer of its accuracies and epoch times.

  python tests/bench/ferplus48_torch.py PACKS [--seeds 0 1 2] [--rows scratch-ce mae-ce mae-mimic]
      [--device cpu|cuda] [--dtype f32|bf16] [--compile] [--scratch mae|timm]
      [--filter bilinear|bicubic] [--epochs N] [--pretrain-epochs N]

PACKS holds tiny64_train, ferplus48_train and ferplus48_test, each a .tar with its .csv. Prints one line per
epoch (seconds of its training part, loss, test accuracy) and a table at the end. Needs torch, torchvision
and Pillow. Images are decoded once and cropped by PIL in two loader processes.
"""
import argparse
import csv
import io
import math
import statistics
import tarfile
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

IMG, PATCH, DIM, DEPTH, HEADS, CLASSES = 48, 6, 128, 6, 4, 8
GRID = IMG // PATCH
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sincos(dim):
    """Fixed table of MAE (util/pos_embed.py): the column first."""
    omega = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    y, x = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    parts = [f(v.reshape(-1, 1) * omega) for v in (x, y) for f in (torch.sin, torch.cos)]
    return torch.cat(parts, 1).float()[None]


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, d))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def initialise(model, scheme):
    """Xavier uniform (MAE) or normal 0.02 (timm) for every linear layer, zero biases."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            if scheme == "mae":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    if scheme == "mae":
        nn.init.xavier_uniform_(model.patch.weight.view(DIM, -1))


class Encoder(nn.Module):
    """Patches and blocks without a class token; pos: "sincos" (fixed) or "learned" (normal 0.02)."""

    def __init__(self, pos):
        super().__init__()
        self.patch = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.pos = nn.Parameter(sincos(DIM), requires_grad=False) if pos == "sincos" else \
            nn.Parameter(torch.randn(1, GRID * GRID, DIM) * 0.02)
        self.blocks = nn.Sequential(*[Block(DIM, HEADS) for _ in range(DEPTH)])

    def tokens(self, images):
        return self.patch(images).flatten(2).transpose(1, 2) + self.pos


class MAE(Encoder):
    def __init__(self):
        super().__init__("sincos")
        self.norm = nn.LayerNorm(DIM, eps=1e-6)
        self.to_decoder, self.mask_token = nn.Linear(DIM, 64), nn.Parameter(torch.randn(1, 1, 64) * 0.02)
        self.pos2 = nn.Parameter(sincos(64), requires_grad=False)
        self.decoder = nn.Sequential(Block(64, 4), Block(64, 4))
        self.norm2, self.pred = nn.LayerNorm(64, eps=1e-6), nn.Linear(64, PATCH * PATCH * 3)
        initialise(self, "mae")

    def forward(self, images):
        n, t, keep = len(images), GRID * GRID, GRID * GRID // 4
        shuffle = torch.rand(n, t, device=images.device).argsort(1)
        x = self.tokens(images)
        x = x.gather(1, shuffle[:, :keep, None].expand(-1, -1, DIM))
        x = self.to_decoder(self.norm(self.blocks(x)))
        x = torch.cat([x, self.mask_token.to(x.dtype).expand(n, t - keep, 64)], 1)
        x = x.gather(1, shuffle.argsort(1)[:, :, None].expand(-1, -1, 64))
        y = self.pred(self.norm2(self.decoder(x + self.pos2))).float()
        p = images.view(n, 3, GRID, PATCH, GRID, PATCH).permute(0, 2, 4, 3, 5, 1).reshape(n, t, -1)
        p = (p - p.mean(-1, keepdim=True)) / (p.var(-1, keepdim=True) + 1e-6).sqrt()
        masked = torch.ones(n, t, device=images.device).scatter(1, shuffle[:, :keep], 0)
        return ((y - p).square().mean(-1) * masked).sum() / masked.sum()


class Classifier(Encoder):
    def __init__(self, scheme, pos):
        super().__init__(pos)
        initialise(self, scheme)
        self.fc_norm, self.head = nn.LayerNorm(DIM, eps=1e-6), nn.Linear(DIM, CLASSES)
        nn.init.normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        self.proj_head = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, 128))

    def forward(self, images):
        r = self.fc_norm(self.blocks(self.tokens(images)).float().mean(1))
        return self.head(r), F.normalize(self.proj_head(r).float(), dim=1)


def mscl(z, mixed, labels, partner, lam, tau=0.07):
    """Eq. 11-13 (preset "mimic"): anchors z are the clean views, candidates the mixed ones, one lam a batch;
    a candidate is a positive when the anchor's class makes up at least half of its label."""
    n = len(z)
    logits = (z @ mixed.T).float() / tau
    own = torch.eye(n, dtype=torch.bool, device=z.device)
    admissible = ~(own | own[partner].T)
    same = labels[:, None] == labels[None, :]
    share = lam * same + (1 - lam) * same[:, partner]
    positive = (admissible & (share >= 0.5 - 1e-6)).float()
    logp = logits - logits.masked_fill(~admissible, -torch.inf).logsumexp(1, keepdim=True)
    return -((positive * logp).sum(1) / positive.sum(1).clamp(min=1)).mean()


def mix(images):
    """Mixup or CutMix at even odds, one lam ~ Beta(2,2) and one box a batch, with the batch turned round."""
    other = images.flip(0)
    lam = torch.distributions.Beta(2.0, 2.0).sample().item()
    if torch.rand(()) < 0.5:
        return images * lam + other * (1 - lam), lam
    half = int(IMG * math.sqrt(1 - lam)) // 2
    y, x = torch.randint(IMG, (2,)).tolist()
    y0, y1, x0, x1 = max(0, y - half), min(IMG, y + half), max(0, x - half), min(IMG, x + half)
    out = images.clone()
    out[:, :, y0:y1, x0:x1] = other[:, :, y0:y1, x0:x1]
    return out, 1 - (y1 - y0) * (x1 - x0) / (IMG * IMG)


class Pack(Dataset):
    def __init__(self, stem, transform, views):
        rows = list(csv.DictReader(open(stem + ".csv")))
        with tarfile.open(stem + ".tar") as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
        self.images = [Image.open(io.BytesIO(files[row["path"]])).convert("RGB") for row in rows]
        for image in self.images:
            image.load()
        self.labels = [int(row["label"]) for row in rows]
        self.transform, self.views = transform, views

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return torch.stack([self.transform(self.images[i]) for _ in range(self.views)]), self.labels[i]


def loader(stem, batch, views, train, scale, filter=T.InterpolationMode.BICUBIC):
    crop = [T.RandomResizedCrop(IMG, scale=scale, interpolation=filter),
            T.RandomHorizontalFlip()] if train else []
    data = Pack(stem, T.Compose(crop + [T.ToTensor(), T.Normalize(MEAN, STD)]), views)
    return DataLoader(data, batch, shuffle=train, drop_last=train, num_workers=2, persistent_workers=True)


def warm_cosine(lr, epochs, warmup):
    def at(epoch):
        if epoch < warmup:
            return lr * epoch / warmup
        return lr * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
    return at


def fit(name, args, batches, epochs, optimiser, lr_at, loss_of, test=None):
    """Trains, printing a line an epoch; the last test accuracy (or loss) and the median seconds an epoch."""
    seconds, score = [], None
    for epoch in range(epochs):
        begun, losses = time.time(), []
        for i, (images, labels) in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = lr_at(epoch + i / len(batches)) * group.get("scale", 1)
            images = images.to(args.device, non_blocking=True).flatten(0, 1)
            labels = labels.to(args.device, non_blocking=True).repeat_interleave(args.views)
            with torch.autocast(args.device, torch.bfloat16, args.dtype == "bf16"):
                loss = loss_of(images, labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        loss = torch.stack(losses).mean().item()
        seconds.append(time.time() - begun)
        score = test() if test else loss
        print(f"{name} epoch {epoch + 1}/{epochs}  {seconds[-1]:.1f} s  loss {loss:.4f}"
              + (f"  acc {score:.2f}" if test else ""), flush=True)
    return score, statistics.median(seconds)


def pretrain(args):
    args.views = 1
    model = MAE().to(args.device)
    decay = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0}],
                                  lr=1e-3, betas=(0.9, 0.95), fused=True)
    step = torch.compile(model) if args.compile else model
    epochs = args.pretrain_epochs
    batches = loader(f"{args.packs}/tiny64_train", 256, 1, True, (0.2, 1))
    _, seconds = fit("mae", args, batches, epochs, optimiser, warm_cosine(1e-3, epochs, epochs / 10),
                     lambda images, _: step(images))
    return model, seconds


def finetune(args, row, mae):
    args.views = 2
    scratch = mae is None
    scheme = args.scratch if scratch else "mae"
    model = Classifier(scheme, "sincos" if scheme == "mae" else "learned").to(args.device)
    if not scratch:
        model.load_state_dict({k: v for k, v in mae.state_dict().items()
                               if k.startswith(("patch", "pos", "blocks")) and not k.startswith("pos2")}, strict=False)
    if args.head_std:
        nn.init.normal_(model.head.weight, std=args.head_std)
    base, decay = (5e-4, 1) if scratch else (1e-3, 0.75)
    groups = {}
    for key, p in model.named_parameters():
        if not p.requires_grad:
            continue
        layer = 0 if key.startswith(("patch", "pos")) else \
            int(key.split(".")[1]) + 1 if key.startswith("blocks") else DEPTH + 1
        wd = 5e-4 if p.ndim > 1 or args.decay_all else 0
        groups.setdefault((layer, wd), []).append(p)
    optimiser = torch.optim.Adam([{"params": ps, "scale": decay ** (DEPTH + 1 - layer), "weight_decay": wd}
                                  for (layer, wd), ps in groups.items()], lr=base, fused=True)
    step = torch.compile(model) if args.compile else model

    def loss_of(images, labels):
        logits, z = step(images)
        loss = F.cross_entropy(logits.float(), labels)
        if row == "mae-mimic":
            mixed, lam = mix(images)
            partner = torch.arange(len(images) - 1, -1, -1, device=images.device)
            loss = loss + 0.1 * mscl(z, step(mixed)[1], labels, partner, lam)
        return loss

    faces = loader(f"{args.packs}/ferplus48_test", 128, 1, False, None)

    @torch.no_grad()
    def test():
        model.eval()
        right = total = 0
        for images, labels in faces:
            with torch.autocast(args.device, torch.bfloat16, args.dtype == "bf16"):
                out = model(images.to(args.device).flatten(0, 1))[0]
            right += (out.argmax(1).cpu() == labels).sum().item()
            total += len(labels)
        model.train()
        return 100 * right / total

    batches = loader(f"{args.packs}/ferplus48_train", 64, 2, True, (0.67, 1), T.InterpolationMode(args.filter))
    return fit(row, args, batches, args.epochs, optimiser, warm_cosine(base, args.epochs, args.epochs / 10),
               loss_of, test)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", default=["scratch-ce", "mae-ce", "mae-mimic"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--threads", type=int, default=2, help="on the CPU")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--scratch", default="mae", choices=["mae", "timm"], help="initial values without pre-training")
    parser.add_argument("--head-std", type=float, default=0, help="instead of 2e-5")
    parser.add_argument("--decay-all", action="store_true", help="weight decay of norms and biases too")
    parser.add_argument("--filter", default="bilinear", choices=["bilinear", "bicubic"], help="of fine-tuning's crops")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pretrain-epochs", type=int, default=60)
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(args.threads)
    accuracies, times = {}, {}
    for seed in args.seeds:
        torch.manual_seed(seed)
        mae = None
        if any(row.startswith("mae") for row in args.rows):
            mae, seconds = pretrain(args)
            times.setdefault("mae", []).append(seconds)
        for row in args.rows:
            score, seconds = finetune(args, row, mae if row.startswith("mae") else None)
            accuracies.setdefault(row, []).append(score)
            times.setdefault(row, []).append(seconds)
    print(f"PyTorch {torch.__version__}, {args.device}, {args.dtype}, seeds {args.seeds}")
    for row, seconds in times.items():
        acc = accuracies.get(row)
        print(f"{row:12s} {statistics.median(seconds):7.1f} s an epoch" + (
            f"   last epoch {statistics.mean(acc):.2f} +- {statistics.stdev(acc) if len(acc) > 1 else 0:.2f}"
            if acc else ""))


if __name__ == "__main__":
    main()
