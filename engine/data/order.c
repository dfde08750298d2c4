/* The order of an epoch, from (seed, epoch) alone: as listed, shuffled, or balanced draws. */
#include "data/loader_impl.h"

#include <string.h>

int mimic_loader_batch_size(const struct mimic_loader *l, int64_t batch) {
    int64_t left = l->size - batch * l->cfg.batch;
    return left < l->cfg.batch ? (int)left : l->cfg.batch;
}

mimic_status mimic_loader_order_init(struct mimic_loader *l) {
    size_t n = (size_t)l->size;
    l->order = mimic_alloc(l->ctx, n * sizeof *l->order);
    if (!l->order)
        return MIMIC_ENOMEM;
    if (!l->cfg.balanced) {
        if (l->cfg.shuffle && !(l->scratch = mimic_alloc(l->ctx, n * sizeof(uint64_t))))
            return MIMIC_ENOMEM;
        return MIMIC_OK;
    }
    int classes = mimic_dataset_classes(l->data);
    l->turn = mimic_alloc(l->ctx, n * sizeof *l->turn);
    l->scratch = mimic_alloc(l->ctx, n * sizeof(uint32_t));
    l->by_class = mimic_alloc(l->ctx, n * sizeof *l->by_class);
    l->class_start = mimic_calloc(l->ctx, ((size_t)classes + 2) * sizeof *l->class_start);
    if (!l->turn || !l->scratch || !l->by_class || !l->class_start)
        return MIMIC_ENOMEM;
    /* Counting sort by class; class_start[k] ends as the first sample of the k-th class that has
     * any. */
    int32_t *start = l->class_start;
    for (int64_t i = 0; i < l->size; i++) {
        int32_t k = mimic_dataset_label(l->data, i);
        if (k < 0)
            return mimic_fail(l->ctx, MIMIC_EINVAL, "balanced sampling, but %s has no label",
                              mimic_dataset_sample_name(l->data, i));
        start[k + 2]++;
    }
    for (int k = 2; k < classes + 2; k++)
        start[k] += start[k - 1];
    for (int64_t i = 0; i < l->size; i++)
        l->by_class[start[mimic_dataset_label(l->data, i) + 1]++] = (int32_t)i;
    for (int k = 0; k < classes; k++)
        if (start[k + 1] > start[k])
            start[l->filled++] = start[k];
    start[l->filled] = (int32_t)l->size;
    return MIMIC_OK;
}

void mimic_loader_order(struct mimic_loader *l) {
    mimic_rng rng;
    int32_t n = (int32_t)l->size;
    mimic_rng_init(&rng, l->cfg.seed, MIMIC_STREAM_ORDER, (uint64_t)l->epoch);
    if (l->cfg.balanced) {
        /* A class at random, then one of its samples: weight 1/count(class) for every sample. */
        uint32_t *seen = l->scratch;
        memset(seen, 0, (size_t)n * sizeof *seen);
        for (int32_t i = 0; i < n; i++) {
            uint32_t k = mimic_rng_below(&rng, (uint32_t)l->filled);
            int32_t from = l->class_start[k], to = l->class_start[k + 1];
            int32_t sample =
                l->by_class[from + (int32_t)mimic_rng_below(&rng, (uint32_t)(to - from))];
            l->order[i] = sample;
            l->turn[i] = seen[sample]++;
        }
    } else if (l->cfg.shuffle) {
        mimic_rng_shuffle(&rng, l->order, l->scratch, n);
    } else {
        for (int32_t i = 0; i < n; i++)
            l->order[i] = i;
    }
}
