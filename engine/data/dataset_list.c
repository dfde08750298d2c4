/* List files: a line is path<TAB>label or path<TAB>p0,p1,... (soft, the largest counts). Paths are
 * relative to the list. Empty lines are skipped, every other line that does not fit is an error. */
#include "data/dataset_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SOFT 4096

/* The comma-separated probabilities, scaled to sum 1, into p (room for MAX_SOFT), and the index of
 * the largest; *n receives their number. */
static mimic_status parse_soft(mimic_text *t, char *text, double *p_out, int32_t *label, int *n) {
    double best = -1, sum = 0;
    *n = 0;
    for (char *p = text; p;) {
        char *comma = strchr(p, ','), *end;
        if (comma)
            *comma = 0;
        double v = strtod(p, &end);
        if (end == p || *end || !(v >= 0) || !isfinite(v))
            return mimic_text_fail(t, "\"%.40s\" is not a probability", p);
        if (v > best) {
            best = v;
            *label = *n;
        }
        sum += v;
        if (*n == MAX_SOFT)
            return mimic_text_fail(t, "more than %d probabilities", MAX_SOFT);
        p_out[(*n)++] = v;
        p = comma ? comma + 1 : NULL;
    }
    if (!(sum > 0))
        return mimic_text_fail(t, "the probabilities are all zero");
    for (int k = 0; k < *n; k++)
        p_out[k] /= sum;
    return MIMIC_OK;
}

static mimic_status parse_line(mimic_text *t, mimic_dataset *d, char *line, const char *folder,
                               bool need_labels, int *soft) {
    char *tab = strchr(line, '\t');
    if (!tab || tab == line)
        return mimic_text_fail(t, "\"%.60s\" is not PATH<TAB>LABEL", line);
    *tab = 0;
    char *text = tab + 1;
    double p[MAX_SOFT];
    int32_t label = -1;
    int64_t v;
    int n = 0;
    mimic_status s;
    if (strchr(text, ',')) {
        s = parse_soft(t, text, p, &label, &n);
        if (s != MIMIC_OK)
            return s;
        if (*soft && *soft != n)
            return mimic_text_fail(t, "%d probabilities, but %d before", n, *soft);
        *soft = n;
        s = mimic_dataset_set_classes(d, n);
    } else if (mimic_parse_int(text, -1, MIMIC_LABEL_MAX - 1, &v)) {
        label = (int32_t)v;
        if (label < 0 && need_labels)
            return mimic_text_fail(t, "\"%.60s\" has no label (-1)", line);
        s = mimic_dataset_set_classes(d, label + 1);
    } else {
        return mimic_text_fail(t, "label \"%.40s\" is neither a number from -1 nor p0,p1,...",
                               text);
    }
    if (s != MIMIC_OK)
        return s;
    s = mimic_dataset_add(d, *line == '/' ? NULL : folder, '/', line, label, 0, (uint32_t)t->line);
    return s == MIMIC_OK && n ? mimic_dataset_add_soft(d, p, n) : s;
}

mimic_status mimic_dataset_open_list(mimic_dataset *d, const mimic_dataset_config *cfg) {
    if (cfg->split)
        return mimic_no_split(d, MIMIC_EINVAL,
                              "%s: a list file has no splits (\"%s\"): use one list per split",
                              cfg->path, cfg->split);
    char folder[MIMIC_PATH_MAX];
    mimic_text t = {0};
    mimic_status s = mimic_path(d->ctx, folder, "%s", cfg->path);
    if (s == MIMIC_OK)
        s = mimic_text_open(&t, d->ctx, cfg->path);
    if (s != MIMIC_OK)
        return s;
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = 0;
    else
        folder[0] = 0;
    d->root = slash ? strlen(folder) + 1 : 0;
    if (slash == folder) /* a list in the root folder: "/" + "/" + name */
        snprintf(folder, sizeof folder, "/.");
    s = mimic_dataset_add_list(d, cfg->path);
    int soft = 0;
    for (char *line; s == MIMIC_OK && (line = mimic_text_line(&t));)
        if (*line)
            s = parse_line(&t, d, line, folder, cfg->need_labels, &soft);
    if (s == MIMIC_OK && soft && d->classes > soft)
        s = mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: label %d, but soft labels have %d classes",
                       cfg->path, d->classes - 1, soft);
    mimic_text_close(&t);
    return s;
}
