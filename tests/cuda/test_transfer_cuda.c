/* Batches to the device through two buffers and a stream of their own: each arrives whole, in the
 * order of the operators, whatever the streams do meanwhile; and so do values to the host. */
#include "cuda_util.h"

enum { BATCHES = 40, COUNT = 1000 };

static void must(mimic_status st) {
    if (st != MIMIC_OK)
        fail_msg("%s: %s", mimic_status_name(st), mimic_message(gpu));
}

/* Without a wait in between: a buffer is filled again only when it was read, and read only when it
 * is filled. The host may write where a batch came from once `fed` returns. */
static void test_feed(void **state) {
    mimic_device *d = &gpu->devices[MIMIC_CUDA];
    const mimic_backend *b = d->backend;
    void *there[BATCHES];
    float *from = b->pin(gpu, BATCHES * COUNT * sizeof *from), back[COUNT];
    (void)state;
    assert_non_null(from);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < BATCHES; i++) {
            int count = i % 3 ? COUNT : COUNT / 2;
            for (int k = 0; k < count; k++)
                from[i * COUNT + k] = (float)(round * 1000000 + i * COUNT + k);
            must(mimic_device_get(d, COUNT * sizeof *from, &there[i]));
            must(b->feed(gpu, there[i], from + i * COUNT, (size_t)count * sizeof *from));
        }
        must(b->fed(gpu));
        memset(from, 0, BATCHES * COUNT * sizeof *from);
        for (int i = 0; i < BATCHES; i++) {
            int count = i % 3 ? COUNT : COUNT / 2;
            must(b->download(gpu, back, there[i], (size_t)count * sizeof *back));
            for (int k = 0; k < count; k++)
                if (back[k] != (float)(round * 1000000 + i * COUNT + k))
                    fail_msg("round %d, batch %d: element %d is %g", round, i, k, back[k]);
            mimic_device_put(d, there[i], COUNT * sizeof *from);
        }
    }
    b->unpin(gpu, from);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_feed)};
    return cmocka_run_group_tests(tests, open_both, close_both);
}
