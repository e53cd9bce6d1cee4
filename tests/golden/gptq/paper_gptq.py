"""GPTQ in double precision with PyTorch: the paper's loop (Frantar et al., 2022, Algorithm 1, with the group handling of
its published code), and the default recipe of this project. Used by make.py here and by interop/paper_codes.py.

Letters as in the paper: W [rows, cols] weights, H = 2/N sum x x' [cols, cols], Hinv the upper Cholesky factor of H's
inverse, d its diagonal. A code q stands for scale * (q - zero). Losses are sums of (w - q)^2 / (2 d^2), which is the
mean over the N inputs of |(W - Q) x|^2 up to the damping.
"""
from dataclasses import dataclass

import torch


@dataclass
class Result:
    codes: torch.Tensor  # [rows, cols] u8, columns in the order of W
    scales: torch.Tensor  # [rows, groups] double, holding fp16 values
    zeros: torch.Tensor  # [rows, groups] double
    g_idx: torch.Tensor  # [cols] group of each column
    order: torch.Tensor  # [cols] column that was solved first, second, ...
    loss: float


def hessian(X):
    """2/N sum x x' in double; X [N, cols]."""
    X = X.double()
    return X.T @ X * (2 / X.shape[0])


def to_fp16(scale):
    return scale.clamp(2.0**-24, 65504).half().double()


def min_max_grid(w, bits, sym, shrink=1.0, signed=False):
    """Scale and zero [rows, 1] of the grid over shrink times the range of w [rows, n]; the range contains 0. A signed
    grid has code 0 at the weight of largest magnitude; shrink may then be negative."""
    lo, hi = w.amin(1, keepdim=True).clamp(max=0), w.amax(1, keepdim=True).clamp(min=0)
    if signed:
        widest = torch.where(-lo >= hi, -lo, -hi)
        widest = torch.where((lo == 0) & (hi == 0), 1.0, widest)
        scale = to_fp16(widest.abs() * abs(shrink) / 2 ** (bits - 1)) * widest.sign() * (1 if shrink > 0 else -1)
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    if sym:
        hi = torch.maximum(-lo, hi)
        lo = -hi
    nothing = (lo == 0) & (hi == 0)
    lo, hi = torch.where(nothing, -1.0, lo) * shrink, torch.where(nothing, 1.0, hi) * shrink
    scale = to_fp16((hi - lo) / (2**bits - 1))
    zero = torch.full_like(scale, 2 ** (bits - 1)) if sym else (-lo / scale).round().clamp(0, 2**bits - 1)
    return scale, zero


def encode(w, scale, zero, bits):
    return ((w / scale).round() + zero).clamp(0, 2**bits - 1)


def tried_grids(w, bits, sym, signed, candidates=40, step=0.0175):
    """Shrunk min-max grids; signed ones also with the other sign, asymmetric ones also with the zeros beside."""
    for i in range(candidates):
        shrink = 1 - step * i
        scale, zero = min_max_grid(w, bits, sym, shrink, signed)
        yield scale, zero
        if signed:
            yield min_max_grid(w, bits, sym, -1.05 * shrink, True)
        if not sym:
            yield scale, (zero - 1).clamp(min=0)
            yield scale, (zero + 1).clamp(max=2**bits - 1)


def best_grid(w, importance, bits, sym, signed=False):
    """Of all grids tried the one with the least squared error of w, weighted with importance [n]."""
    best = None
    for scale, zero in tried_grids(w, bits, sym, signed):
        error = ((scale * (encode(w, scale, zero, bits) - zero) - w) ** 2 * importance).sum(1, keepdim=True)
        if best is None:
            best = error, scale, zero
        else:
            better = error < best[0]
            best = tuple(torch.where(better, new, old) for new, old in zip((error, scale, zero), best))
    return best[1:]


def damped(W, H, percent):
    """W and H in double with columns that were never activated as the paper treats them, H with its damping."""
    W, H = W.double().clone(), H.double().clone()
    dead = H.diagonal() == 0
    H.diagonal()[dead] = 1
    W[:, dead] = 0
    undamped_diagonal = H.diagonal().clone()
    H.diagonal().add_(percent * H.diagonal().mean())
    return W, H, undamped_diagonal


def falling(diagonal):
    return torch.argsort(diagonal, descending=True, stable=True)


def paper(W, H, bits, group_size, sym, desc_act=False, percent=0.01, block=128):
    """The paper's loop. A group's grid comes from its weights as earlier blocks of columns, but not its own block,
    have corrected them. desc_act solves by falling diagonal and forms the groups in that order."""
    W, H, diagonal = damped(W, H, percent)
    rows, cols = W.shape
    group_size = cols if group_size == -1 else group_size
    order = falling(diagonal) if desc_act else torch.arange(cols)
    W, H = W[:, order], H[order][:, order]
    Hinv = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)

    codes = torch.zeros_like(W)
    scales, zeros, loss = [], [], 0.0
    for first in range(0, cols, block):
        last = min(first + block, cols)
        W1 = W[:, first:last].clone()  # corrected column by column; W itself only after the block
        errors = torch.zeros_like(W1)
        for i in range(last - first):
            if (first + i) % group_size == 0:
                scale, zero = min_max_grid(W[:, first + i : first + i + group_size], bits, sym)
                scales.append(scale)
                zeros.append(zero)
            d = Hinv[first + i, first + i]
            w = W1[:, i : i + 1]
            code = encode(w, scales[-1], zeros[-1], bits)
            error = (w - scales[-1] * (code - zeros[-1])) / d
            loss += (error**2).sum().item() / 2
            W1[:, i:] -= error * Hinv[first + i, first:last][None, i:]
            codes[:, first + i], errors[:, i] = code[:, 0], error[:, 0]
        W[:, last:] -= errors @ Hinv[first:last, last:]

    back = torch.argsort(order)
    g_idx = (torch.arange(cols) // group_size)[back]
    return Result(codes[:, back].byte(), torch.cat(scales, 1), torch.cat(zeros, 1), g_idx, order, loss)


def refined(T, H, codes, scales, zeros, bits, group_size, stages):
    """Codes and scales after the stages: r, scales by least squares for the codes; cN, N sweeps of coordinate
    descent."""
    rows, cols = T.shape
    groups = cols // group_size
    g_idx = torch.arange(cols) // group_size
    for stage in stages.split():
        if stage == "r":
            centered = codes - zeros[:, g_idx]
            for row in range(rows):
                spread = torch.zeros(cols, groups, dtype=torch.float64)  # column g: the codes of group g
                spread[torch.arange(cols), g_idx] = centered[row]
                A, b = spread.T @ H @ spread, spread.T @ H @ T[row]
                A += 1e-6 * A.diagonal().mean() * torch.eye(groups, dtype=torch.float64)
                fitted = torch.linalg.solve(A, b).half().double()
                scales[row] = torch.where(fitted == 0, scales[row], fitted)
            continue
        for _ in range(int(stage[1:])):
            Q = scales[:, g_idx] * (codes - zeros[:, g_idx])
            G = (T - Q) @ H
            for k in range(cols):
                scale, zero = scales[:, g_idx[k]], zeros[:, g_idx[k]]
                codes[:, k] = encode(Q[:, k] + G[:, k] / H[k, k], scale, zero, bits)
                moved = scale * (codes[:, k] - zero) - Q[:, k]
                G -= moved[:, None] * H[k][None]
                Q[:, k] += moved
    E = T - scales[:, g_idx] * (codes - zeros[:, g_idx])
    return codes, scales, ((E @ H) * E).sum().item() / 2


def default(W, H, bits, group_size, sym, percent=0.01, signed=False, cross=None, alpha=0.5, stages=""):
    """All grids first, by the search weighted with the damped diagonal; then all columns by falling diagonal, in the
    form without an inverse: with H = R R', R upper triangular, the target of column k is w_k + sum_{j<k} (w_j - q_j)
    R_jk / R_kk (arXiv 2307.13304). With cross = (2 / tokens) sum (original - x) x' the weights become W + alpha W cross
    inv(H) first."""
    W, H, diagonal = damped(W, H, percent)
    if cross is not None:
        W = W + alpha * W @ cross @ torch.linalg.inv(H)
    rows, cols = W.shape
    group_size = cols if group_size == -1 else group_size
    g_idx = torch.arange(cols) // group_size
    grids = [
        best_grid(W[:, k : k + group_size], H.diagonal()[k : k + group_size], bits, sym, signed)
        for k in range(0, cols, group_size)
    ]
    scales, zeros = (torch.cat(parts, 1) for parts in zip(*grids))

    order = falling(diagonal)
    R = torch.linalg.cholesky(H[order][:, order].flip(0, 1)).flip(0, 1)
    codes, feedback, loss = torch.zeros_like(W), torch.zeros_like(W), 0.0
    for i, column in enumerate(order.tolist()):
        scale, zero = scales[:, g_idx[column]], zeros[:, g_idx[column]]
        w = W[:, column]
        target = w + feedback[:, i] / R[i, i]
        codes[:, column] = encode(target, scale, zero, bits)
        q = scale * (codes[:, column] - zero)
        feedback += (w - q)[:, None] * R[i][None]
        loss += ((R[i, i] * (target - q)) ** 2).sum().item() / 2
    if stages:
        codes, scales, loss = refined(W, H, codes, scales, zeros, bits, group_size, stages)
    return Result(codes.byte(), scales, zeros, g_idx, order, loss)
