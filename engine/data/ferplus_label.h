/* The label rules of FERPlus: ten votes to a class, or to shares of classes. */
#ifndef MIMIC_FERPLUS_LABEL_H
#define MIMIC_FERPLUS_LABEL_H

#include <stdbool.h>

enum { MIMIC_FERPLUS_VOTES = 10, MIMIC_FERPLUS_CLASSES = 8 }; /* votes 8, 9: unknown, no face */

typedef enum mimic_ferplus_mode {
    MIMIC_FERPLUS_MAXVOTE,      /* largest of the eight emotions */
    MIMIC_FERPLUS_MAJORITY,     /* more than half of the votes that are not alone */
    MIMIC_FERPLUS_CROSSENTROPY, /* shares of up to three emotions with 75 % of the votes */
    MIMIC_FERPLUS_PROBABILITY,  /* the same shares, to draw one class from */
    MIMIC_FERPLUS_MULTI_TARGET, /* equal shares of the emotions with at least 30 % */
    MIMIC_FERPLUS_MODES
} mimic_ferplus_mode;

/* False when the rule discards the row. *label: the first of the largest; share sums to 1. */
bool mimic_ferplus_label(const int votes[MIMIC_FERPLUS_VOTES], mimic_ferplus_mode mode, int *label,
                         double share[MIMIC_FERPLUS_CLASSES]);

#endif
