/* Label rules of FERPlus (method.md 5; Barsoum et al., ICMI 2016, and their published code, whose
 * counts the rules reproduce). */
#include "data/ferplus_label.h"

#include <string.h>

enum { VOTES = MIMIC_FERPLUS_VOTES, CLASSES = MIMIC_FERPLUS_CLASSES };

static int sum_of(const int *v, int n) {
    int sum = 0;
    for (int k = 0; k < n; k++)
        sum += v[k];
    return sum;
}

static int first_largest(const int *v, int n) {
    int best = 0;
    for (int k = 1; k < n; k++)
        if (v[k] > v[best])
            best = k;
    return best;
}

/* Takes the largest counts, ties together, until 75 % of the votes or three emotions; "unknown" or
 * "no face" ends the taking, and does not count when emotions came before. */
static bool take_largest(const int *votes, int *kept) {
    int left[VOTES], total = sum_of(votes, VOTES), part = 0, count = 0;
    bool open = true;
    memcpy(left, votes, sizeof left);
    while (open && part < 0.75 * total && count < 3) {
        int most = left[first_largest(left, VOTES)];
        for (int k = 0; k < VOTES && open; k++) {
            if (left[k] != most)
                continue;
            kept[k] = most;
            left[k] = 0;
            part += most;
            count++;
            if (k < CLASSES)
                continue;
            open = false;
            if (sum_of(kept, VOTES) > most) {
                kept[k] = 0;
                count--;
            }
        }
    }
    return sum_of(kept, VOTES) > 0.5 * total && count <= 3;
}

bool mimic_ferplus_label(const int votes[VOTES], mimic_ferplus_mode mode, int *label,
                         double share[CLASSES]) {
    int clean[VOTES], kept[VOTES] = {0}, total = 0;
    for (int k = 0; k < VOTES; k++) {
        clean[k] = votes[k] == 1 && mode != MIMIC_FERPLUS_MAXVOTE ? 0 : votes[k];
        total += clean[k];
    }
    int best = first_largest(clean, VOTES);
    bool keep = total > 0;
    switch (mode) {
    case MIMIC_FERPLUS_MAJORITY:
        kept[best] = clean[best];
        keep = keep && clean[best] > 0.5 * total;
        break;
    case MIMIC_FERPLUS_CROSSENTROPY:
    case MIMIC_FERPLUS_PROBABILITY:
        keep = keep && take_largest(clean, kept);
        break;
    case MIMIC_FERPLUS_MULTI_TARGET: {
        int part = 0;
        for (int k = 0; k < VOTES; k++)
            if (clean[k] >= 0.3 * total)
                part += kept[k] = clean[k];
        keep = keep && part > 0.5 * total;
        break;
    }
    default:
        best = first_largest(clean, CLASSES);
        kept[best] = clean[best];
    }
    int emotions = sum_of(kept, CLASSES), number = 0;
    *label = first_largest(kept, VOTES);
    if (!keep || emotions == 0 || *label >= CLASSES)
        return false;
    for (int k = 0; k < CLASSES; k++)
        number += kept[k] > 0;
    for (int k = 0; k < CLASSES; k++)
        share[k] = mode == MIMIC_FERPLUS_MULTI_TARGET ? (double)(kept[k] > 0) / number
                                                      : (double)kept[k] / emotions;
    return true;
}
