/* The pickle machine: opcodes of protocols 2 to 5 that checkpoints are made of. */
#include "store/pickle.h"

#include <stdio.h>
#include <string.h>

enum { MAX_VALUES = 50 * 1000 * 1000 };

static mimic_status fail(const mimic_pickle *p, const char *what) {
    return mimic_fail(p->ctx, MIMIC_EFORMAT, "%s: pickle byte %zu: %s", p->path, p->at, what);
}

/* Room for one more pointer-sized item. */
static bool grow(mimic_ctx *ctx, void *array, size_t n, size_t *room) {
    if (n < *room)
        return true;
    size_t want = *room ? *room * 2 : 64;
    void *q = mimic_realloc(ctx, *(void **)array, *room * sizeof(void *), want * sizeof(void *));
    if (!q)
        return false;
    *(void **)array = q;
    *room = want;
    return true;
}

static mimic_py *new_value(mimic_pickle *p, mimic_py_kind kind) {
    if (p->n_all == MAX_VALUES || !grow(p->ctx, &p->all, p->n_all, &p->room_all))
        return NULL;
    mimic_py *v = mimic_calloc(p->ctx, sizeof *v);
    if (!v)
        return NULL;
    v->kind = kind;
    p->all[p->n_all++] = v;
    return v;
}

static bool has_items(const mimic_py *v) {
    return v->kind == MIMIC_PY_LIST || v->kind == MIMIC_PY_DICT || v->kind == MIMIC_PY_STORAGE ||
           v->kind == MIMIC_PY_TENSOR;
}

void mimic_pickle_free(mimic_pickle *p) {
    for (size_t i = 0; i < p->n_all; i++) {
        if (has_items(p->all[i]))
            mimic_free(p->ctx, (void *)p->all[i]->item);
        mimic_free(p->ctx, p->all[i]);
    }
    mimic_free(p->ctx, (void *)p->all);
    mimic_free(p->ctx, (void *)p->stack);
    mimic_free(p->ctx, (void *)p->memo);
    mimic_free(p->ctx, p->marks);
    p->all = p->stack = p->memo = NULL;
    p->marks = NULL;
    p->n_all = p->room_all = p->n_stack = p->room_stack = p->room_memo = p->n_marks =
        p->room_marks = 0;
}

bool mimic_py_is(const mimic_py *v, const char *text) {
    return (v->kind == MIMIC_PY_TEXT || v->kind == MIMIC_PY_CLASS) && v->n == strlen(text) &&
           memcmp(v->text, text, v->n) == 0;
}

static mimic_status push(mimic_pickle *p, mimic_py *v) {
    if (!v)
        return p->n_all == MAX_VALUES ? fail(p, "too many values") : MIMIC_ENOMEM;
    if (!grow(p->ctx, &p->stack, p->n_stack, &p->room_stack))
        return MIMIC_ENOMEM;
    p->stack[p->n_stack++] = v;
    return MIMIC_OK;
}

/* Values above the last mark, or all. */
static size_t above(const mimic_pickle *p) {
    return p->n_stack - (p->n_marks ? p->marks[p->n_marks - 1] : 0);
}

static mimic_py *pop(mimic_pickle *p) {
    return above(p) ? p->stack[--p->n_stack] : NULL;
}

static mimic_status append(mimic_pickle *p, mimic_py *list, mimic_py *v) {
    if (list->n == list->room) {
        uint32_t room = list->room ? list->room * 2 : 4;
        if (room < list->room)
            return fail(p, "a list of too many values");
        mimic_py **item = mimic_realloc(p->ctx, (void *)list->item, list->room * sizeof *item,
                                        room * sizeof *item);
        if (!item)
            return MIMIC_ENOMEM;
        list->item = item;
        list->room = room;
    }
    list->item[list->n++] = v;
    return MIMIC_OK;
}

/* `n` bytes of the pickle, or NULL at its end. */
static const uint8_t *take(mimic_pickle *p, uint64_t n) {
    if (n > p->size - p->at)
        return NULL;
    const uint8_t *b = p->data + p->at;
    p->at += (size_t)n;
    return b;
}

static bool number(mimic_pickle *p, int bytes, uint64_t *out) {
    const uint8_t *b = take(p, (uint64_t)bytes);
    *out = 0;
    for (int i = 0; b && i < bytes; i++)
        *out |= (uint64_t)b[i] << (8 * i);
    return b != NULL;
}

static mimic_status push_int(mimic_pickle *p, mimic_py_kind kind, int64_t i) {
    mimic_py *v = new_value(p, kind);
    if (v)
        v->i = i;
    return push(p, v);
}

static mimic_status push_text(mimic_pickle *p, int length_bytes) {
    uint64_t n;
    const uint8_t *b = NULL;
    if (!number(p, length_bytes, &n) || n > UINT32_MAX || !(b = take(p, n)))
        return fail(p, "a text that is cut off");
    mimic_py *v = new_value(p, MIMIC_PY_TEXT);
    if (v) {
        v->text = (const char *)b;
        v->n = (uint32_t)n;
    }
    return push(p, v);
}

static mimic_status push_long(mimic_pickle *p, int length_bytes) {
    uint64_t n, bits = 0;
    const uint8_t *b = NULL;
    if (!number(p, length_bytes, &n) || n > UINT32_MAX || !(b = take(p, n)))
        return fail(p, "an integer that is cut off");
    if (n > 8) {
        mimic_py *v = new_value(p, MIMIC_PY_LONG);
        if (v) {
            v->text = (const char *)b;
            v->n = (uint32_t)n;
        }
        return push(p, v);
    }
    for (uint64_t i = 0; i < n; i++)
        bits |= (uint64_t)b[i] << (8 * i);
    if (n > 0 && n < 8 && b[n - 1] & 0x80)
        bits |= ~(uint64_t)0 << (8 * n);
    return push_int(p, MIMIC_PY_INT, (int64_t)bits);
}

static mimic_status push_float(mimic_pickle *p) {
    const uint8_t *b = take(p, 8);
    uint64_t bits = 0;
    if (!b)
        return fail(p, "a number that is cut off");
    for (int i = 0; i < 8; i++)
        bits = bits << 8 | b[i];
    mimic_py *v = new_value(p, MIMIC_PY_FLOAT);
    if (v)
        memcpy(&v->f, &bits, 8);
    return push(p, v);
}

/* --- classes: only what checkpoints are made of, and only as data -------------------------------
 */

static const char *const storages[] = {"Float", "Half",  "BFloat16", "Double", "Long",
                                       "Int",   "Short", "Char",     "Byte",   "Bool"};
/* Objects that may occur beside the weights; their contents are dropped. */
static const char *const opaque[] = {"argparse.Namespace",
                                     "torch.device",
                                     "torch.Size",
                                     "torch.serialization._get_layout",
                                     "_codecs.encode",
                                     "builtins.set",
                                     "__builtin__.set",
                                     "numpy.dtype",
                                     "numpy.core.multiarray.scalar",
                                     "numpy._core.multiarray.scalar"};
static const char *const known[] = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2",
                                    "torch._utils._rebuild_tensor",
                                    "torch._utils._rebuild_parameter"};

static bool is_opaque(const mimic_py *c) {
    for (size_t i = 0; i < sizeof opaque / sizeof *opaque; i++)
        if (mimic_py_is(c, opaque[i]))
            return true;
    /* dtypes: torch.float32 ... */
    return c->n > 6 && memcmp(c->text, "torch.", 6) == 0 && !memchr(c->text + 6, '.', c->n - 6) &&
           c->text[6] >= 'a' && c->text[6] <= 'z';
}

static bool is_known(const mimic_py *c) {
    char name[64];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (mimic_py_is(c, known[i]))
            return true;
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++) {
        snprintf(name, sizeof name, "torch.%sStorage", storages[i]);
        if (mimic_py_is(c, name))
            return true;
    }
    return is_opaque(c);
}

/* Pushes class "module.name"; the text is made in memory of its own, kept as a value. */
static mimic_status push_class(mimic_pickle *p, const char *module, size_t a, const char *name,
                               size_t b) {
    if (a > 200 || b > 200)
        return fail(p, "a class name of more than 200 bytes");
    mimic_py *v = new_value(p, MIMIC_PY_CLASS), *text = NULL;
    if (v && (text = new_value(p, MIMIC_PY_LIST)))
        text->item = mimic_alloc(p->ctx, a + b + 1); /* freed like a list's items */
    if (!v || !text || !text->item)
        return MIMIC_ENOMEM;
    char *full = (char *)text->item;
    memcpy(full, module, a);
    full[a] = '.';
    memcpy(full + a + 1, name, b);
    v->text = full;
    v->n = (uint32_t)(a + b + 1);
    if (!is_known(v))
        return mimic_fail(
            p->ctx, MIMIC_EUNSUPPORTED,
            "%s: class %.*s is not read: only tensors and plain data are; nothing in the "
            "file is executed",
            p->path, (int)v->n, full);
    return push(p, v);
}

/* "module\nname\n" */
static mimic_status global(mimic_pickle *p) {
    const char *part[2];
    size_t n[2];
    for (int k = 0; k < 2; k++) {
        const uint8_t *from = p->data + p->at, *end = memchr(from, '\n', p->size - p->at);
        if (!end)
            return fail(p, "a class name that is cut off");
        part[k] = (const char *)from;
        n[k] = (size_t)(end - from);
        p->at += n[k] + 1;
    }
    return push_class(p, part[0], n[0], part[1], n[1]);
}

static mimic_status rebuild(mimic_pickle *p, const mimic_py *args) {
    if (args->n < 4 || args->item[0]->kind != MIMIC_PY_STORAGE ||
        args->item[1]->kind != MIMIC_PY_INT || args->item[2]->kind != MIMIC_PY_LIST ||
        args->item[3]->kind != MIMIC_PY_LIST)
        return fail(p, "a tensor without storage, offset, size and stride");
    mimic_py *v = new_value(p, MIMIC_PY_TENSOR);
    mimic_status s = v ? MIMIC_OK : MIMIC_ENOMEM;
    for (uint32_t i = 0; i < 4 && s == MIMIC_OK; i++)
        s = append(p, v, args->item[i]);
    return s == MIMIC_OK ? push(p, v) : s;
}

/* OrderedDict() or OrderedDict([(key, value), ...]) */
static mimic_status ordered_dict(mimic_pickle *p, const mimic_py *args) {
    mimic_py *v = new_value(p, MIMIC_PY_DICT);
    mimic_status s = v ? MIMIC_OK : MIMIC_ENOMEM;
    const mimic_py *list = args->n == 1 ? args->item[0] : NULL;
    if (args->n > 1 || (list && list->kind != MIMIC_PY_LIST))
        return fail(p, "an OrderedDict of something else than pairs");
    for (uint32_t i = 0; list && i < list->n && s == MIMIC_OK; i++) {
        const mimic_py *pair = list->item[i];
        if (pair->kind != MIMIC_PY_LIST || pair->n != 2)
            return fail(p, "an OrderedDict of something else than pairs");
        s = append(p, v, pair->item[0]);
        if (s == MIMIC_OK)
            s = append(p, v, pair->item[1]);
    }
    return s == MIMIC_OK ? push(p, v) : s;
}

static mimic_status reduce(mimic_pickle *p) {
    mimic_py *args = pop(p), *f = pop(p);
    if (!args || !f || args->kind != MIMIC_PY_LIST || f->kind != MIMIC_PY_CLASS)
        return fail(p, "a call of something that is no class");
    if (mimic_py_is(f, "collections.OrderedDict"))
        return ordered_dict(p, args);
    if (mimic_py_is(f, "torch._utils._rebuild_tensor_v2") ||
        mimic_py_is(f, "torch._utils._rebuild_tensor"))
        return rebuild(p, args);
    if (mimic_py_is(f, "torch._utils._rebuild_parameter"))
        return args->n > 0 ? push(p, args->item[0]) : fail(p, "a parameter without data");
    if (!is_opaque(f))
        return mimic_fail(p->ctx, MIMIC_EUNSUPPORTED, "%s: a call of %.*s is not read", p->path,
                          (int)f->n, f->text);
    return push(p, new_value(p, MIMIC_PY_OPAQUE));
}

static mimic_status persistent(mimic_pickle *p) {
    const mimic_py *id = pop(p);
    if (!id || id->kind != MIMIC_PY_LIST || id->n < 5 || !mimic_py_is(id->item[0], "storage") ||
        id->item[1]->kind != MIMIC_PY_CLASS || id->item[2]->kind != MIMIC_PY_TEXT ||
        id->item[4]->kind != MIMIC_PY_INT)
        return fail(p, "a persistent id that is no storage");
    mimic_py *v = new_value(p, MIMIC_PY_STORAGE);
    mimic_status s = v ? MIMIC_OK : MIMIC_ENOMEM;
    for (uint32_t i = 0; i < id->n && s == MIMIC_OK; i++)
        s = append(p, v, id->item[i]);
    return s == MIMIC_OK ? push(p, v) : s;
}

/* --- containers --------------------------------------------------------------------------------
 */

static mimic_status mark(mimic_pickle *p) {
    if (!grow(p->ctx, &p->marks, p->n_marks, &p->room_marks))
        return MIMIC_ENOMEM;
    p->marks[p->n_marks++] = p->n_stack;
    return MIMIC_OK;
}

/* The last `n` values, off the stack, as a list. */
static mimic_status collect(mimic_pickle *p, size_t n, mimic_py_kind kind) {
    if (n > above(p))
        return fail(p, "a tuple of more values than there are");
    mimic_py *v = new_value(p, kind);
    mimic_status s = v ? MIMIC_OK : MIMIC_ENOMEM;
    for (size_t i = p->n_stack - n; i < p->n_stack && s == MIMIC_OK; i++)
        s = append(p, v, p->stack[i]);
    p->n_stack -= n;
    return s == MIMIC_OK ? push(p, v) : s;
}

static mimic_status collect_marked(mimic_pickle *p, mimic_py_kind kind) {
    if (p->n_marks == 0)
        return fail(p, "no mark");
    size_t n = above(p);
    p->n_marks--;
    return collect(p, n, kind);
}

/* Adds the last n values to the container below them. */
static mimic_status extend(mimic_pickle *p, size_t n, mimic_py_kind kind) {
    if (above(p) <= n)
        return fail(p, "nothing to add to");
    mimic_py *to = p->stack[p->n_stack - n - 1];
    mimic_status s = MIMIC_OK;
    p->n_stack -= n;
    if (to->kind == MIMIC_PY_OPAQUE)
        return s;
    if (to->kind != kind || (kind == MIMIC_PY_DICT && n % 2))
        return fail(p, "a value added to something that is no list or dict");
    for (size_t i = 0; i < n && s == MIMIC_OK; i++)
        s = append(p, to, p->stack[p->n_stack + i]);
    return s;
}

static mimic_status extend_marked(mimic_pickle *p, mimic_py_kind kind) {
    if (p->n_marks == 0)
        return fail(p, "no mark");
    size_t n = above(p);
    p->n_marks--;
    return extend(p, n, kind);
}

static mimic_status put(mimic_pickle *p, uint64_t i) {
    if (above(p) == 0)
        return fail(p, "nothing to remember");
    if (i > p->size) /* an index takes bytes: more cannot be needed */
        return fail(p, "a memo of too many values");
    while (i >= p->room_memo) {
        size_t old = p->room_memo;
        if (!grow(p->ctx, &p->memo, old, &p->room_memo))
            return MIMIC_ENOMEM;
        memset((void *)(p->memo + old), 0, (p->room_memo - old) * sizeof *p->memo);
    }
    p->memo[i] = p->stack[p->n_stack - 1];
    return MIMIC_OK;
}

static mimic_status get(mimic_pickle *p, int bytes) {
    uint64_t i;
    if (!number(p, bytes, &i) || i >= p->room_memo || !p->memo[i])
        return fail(p, "a value that was not remembered");
    return push(p, p->memo[i]);
}

/* obj.__setstate__: of opaque objects it is dropped, of dicts it has no weights. */
static mimic_status build(mimic_pickle *p) {
    const mimic_py *state = pop(p);
    if (!state || above(p) == 0)
        return fail(p, "a state of nothing");
    const mimic_py *to = p->stack[p->n_stack - 1];
    if (to->kind != MIMIC_PY_OPAQUE && to->kind != MIMIC_PY_DICT)
        return fail(p, "a state of something that has none");
    return MIMIC_OK;
}

static mimic_status stack_global(mimic_pickle *p) {
    const mimic_py *name = pop(p), *module = pop(p);
    if (!name || !module || name->kind != MIMIC_PY_TEXT || module->kind != MIMIC_PY_TEXT)
        return fail(p, "a class without a name");
    return push_class(p, module->text, module->n, name->text, name->n);
}

/* cls.__new__(cls, *args) */
static mimic_status new_object(mimic_pickle *p) {
    const mimic_py *args = pop(p), *f = pop(p);
    if (!args || !f || args->kind != MIMIC_PY_LIST || f->kind != MIMIC_PY_CLASS)
        return fail(p, "an object of something that is no class");
    if (mimic_py_is(f, "collections.OrderedDict"))
        return ordered_dict(p, args);
    if (!is_opaque(f))
        return mimic_fail(p->ctx, MIMIC_EUNSUPPORTED, "%s: an object of %.*s is not read", p->path,
                          (int)f->n, f->text);
    return push(p, new_value(p, MIMIC_PY_OPAQUE));
}

static mimic_status put_number(mimic_pickle *p, int bytes) {
    uint64_t i;
    return number(p, bytes, &i) ? put(p, i) : fail(p, "cut off");
}

static mimic_status push_number(mimic_pickle *p, int bytes) {
    uint64_t v;
    if (!number(p, bytes, &v))
        return fail(p, "a number that is cut off");
    return push_int(p, MIMIC_PY_INT, bytes == 4 ? (int64_t)(int32_t)(uint32_t)v : (int64_t)v);
}

static mimic_status step(mimic_pickle *p, uint8_t op, uint64_t *memoized) {
    uint64_t v;
    switch (op) {
    case 0x80: /* PROTO */
        return number(p, 1, &v) && v <= 5 ? MIMIC_OK : fail(p, "an unknown protocol");
    case 0x95: /* FRAME */
        return number(p, 8, &v) && v <= p->size - p->at ? MIMIC_OK
                                                        : fail(p, "a frame that is cut off");
    case '(':
        return mark(p);
    case ')':
        return push(p, new_value(p, MIMIC_PY_LIST));
    case ']':
    case 0x8f: /* EMPTY_SET */
        return push(p, new_value(p, MIMIC_PY_LIST));
    case '}':
        return push(p, new_value(p, MIMIC_PY_DICT));
    case 't':
    case 0x91: /* FROZENSET */
        return collect_marked(p, MIMIC_PY_LIST);
    case 0x85: /* TUPLE1..3 */
    case 0x86:
    case 0x87:
        return collect(p, op - 0x84u, MIMIC_PY_LIST);
    case 'a':
        return extend(p, 1, MIMIC_PY_LIST);
    case 'e':
    case 0x90: /* ADDITEMS */
        return extend_marked(p, MIMIC_PY_LIST);
    case 's':
        return extend(p, 2, MIMIC_PY_DICT);
    case 'u':
        return extend_marked(p, MIMIC_PY_DICT);
    case 'q':
        return put_number(p, 1);
    case 'r':
        return put_number(p, 4);
    case 0x94: /* MEMOIZE */
        return put(p, (*memoized)++);
    case 'h':
        return get(p, 1);
    case 'j':
        return get(p, 4);
    case 'N':
        return push(p, new_value(p, MIMIC_PY_NONE));
    case 0x88: /* NEWTRUE, NEWFALSE */
    case 0x89:
        return push_int(p, MIMIC_PY_BOOL, op == 0x88);
    case 'K':
        return push_number(p, 1);
    case 'M':
        return push_number(p, 2);
    case 'J':
        return push_number(p, 4);
    case 0x8a: /* LONG1 */
        return push_long(p, 1);
    case 0x8b: /* LONG4 */
        return push_long(p, 4);
    case 'G':
        return push_float(p);
    case 'X': /* BINUNICODE, BINBYTES, BINSTRING */
    case 'B':
    case 'T':
        return push_text(p, 4);
    case 0x8c: /* SHORT_BINUNICODE */
    case 'C':
    case 'U':
        return push_text(p, 1);
    case 0x8d: /* BINUNICODE8, BINBYTES8, BYTEARRAY8 */
    case 0x8e:
    case 0x96:
        return push_text(p, 8);
    case 'c':
        return global(p);
    case 0x93:
        return stack_global(p);
    case 'R':
        return reduce(p);
    case 0x81:
        return new_object(p);
    case 'b':
        return build(p);
    case 'Q':
        return persistent(p);
    case '0':
        return pop(p) ? MIMIC_OK : fail(p, "nothing to drop");
    case '2':
        return above(p) ? push(p, p->stack[p->n_stack - 1]) : fail(p, "nothing to repeat");
    default:
        p->at--;
        return mimic_fail(p->ctx, MIMIC_EUNSUPPORTED,
                          op > ' ' && op < 127 ? "%s: pickle byte %zu: opcode '%c' is not read"
                                               : "%s: pickle byte %zu: opcode 0x%02x is not read",
                          p->path, p->at, op);
    }
}

mimic_status mimic_pickle_load(mimic_pickle *p, mimic_py **out) {
    uint64_t memoized = 0;
    p->n_stack = p->n_marks = 0;
    if (p->room_memo)
        memset((void *)p->memo, 0, p->room_memo * sizeof *p->memo);
    for (;;) {
        const uint8_t *op = take(p, 1);
        if (!op)
            return fail(p, "the pickle is cut off");
        if (*op == '.')
            break;
        mimic_status s = step(p, *op, &memoized);
        if (s != MIMIC_OK)
            return s;
    }
    if (p->n_stack != 1)
        return fail(p, "the pickle ends with no single value");
    *out = p->stack[0];
    return MIMIC_OK;
}
