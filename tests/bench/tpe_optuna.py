"""Regrets of Optuna's TPE on the functions of tpe_vs_optuna: one line per function and seed: name seed regret."""
import math
import sys
import warnings

import optuna

A = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
P = [[1312, 1696, 5569, 124, 8283, 5886], [2329, 4135, 8307, 3736, 1004, 9991],
     [2348, 1451, 3522, 2883, 3047, 6650], [4047, 8828, 8732, 5743, 1091, 381]]
C = [1.0, 1.2, 3.0, 3.2]


def branin(t):
    x, y = t.suggest_float("x", -5, 10), t.suggest_float("y", 0, 15)
    b, c, s = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    return (y - b * x**2 + c * x - 6) ** 2 + 10 * (1 - s) * math.cos(x) + 10


def hartmann6(t):
    x = [t.suggest_float(f"x{i}", 0, 1) for i in range(1, 7)]
    return -sum(C[k] * math.exp(-sum(A[k][i] * (x[i] - 1e-4 * P[k][i]) ** 2 for i in range(6))) for k in range(4))


def mixed(t):
    kind = t.suggest_categorical("kind", ["a", "b", "c"])
    lr = math.log10(t.suggest_float("lr", 1e-5, 1, log=True))
    if kind == "a":
        depth, momentum = t.suggest_int("depth", 1, 12), t.suggest_float("momentum", 0, 1)
        return (lr + 3) ** 2 + 0.2 * abs(depth - 7) + 3 * (momentum - 0.9) ** 2
    if kind == "b":
        tau = math.log10(t.suggest_float("tau", 0.01, 1, log=True))
        return 0.3 + (lr + 2) ** 2 + 4 * (tau + 1.2) ** 2
    return 0.6 + 0.5 * (lr + 4) ** 2 + (0 if t.suggest_categorical("mode", ["p", "q", "r", "s"]) == "r" else 0.5)


def main():
    budget, seeds = int(sys.argv[1]), int(sys.argv[2])
    options = {"multivariate": True, "group": True} if len(sys.argv) > 3 and sys.argv[3] == "multivariate" else {}
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for f, best in ((branin, 0.397887357729739), (hartmann6, -3.32236801141551), (mixed, 0.0)):
        for seed in range(seeds):
            study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, **options))
            study.optimize(f, n_trials=budget)
            print(f.__name__, seed, f"{study.best_value - best:.9g}", sep="\t")


main()
