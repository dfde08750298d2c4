/* Strict JSON scanner for file headers: every byte is checked, nothing is guessed or skipped. */
#include <string.h>

#include "store/store_impl.h"

static bool fail(mimic_json *j, const char *why) {
    if (!j->error)
        j->error = why;
    return false;
}

static void spaces(mimic_json *j) {
    while (j->at < j->size && memchr(" \t\r\n", j->text[j->at], 4))
        j->at++;
}

bool mimic_json_peek(mimic_json *j, char c) {
    if (j->error)
        return false;
    spaces(j);
    return j->at < j->size && j->text[j->at] == c;
}

bool mimic_json_token(mimic_json *j, char c) {
    if (!mimic_json_peek(j, c)) {
        switch (c) {
        case '{':
            return fail(j, "expected '{'");
        case '}':
            return fail(j, "expected '}'");
        case '[':
            return fail(j, "expected '['");
        case ']':
            return fail(j, "expected ']'");
        case ':':
            return fail(j, "expected ':'");
        default:
            return fail(j, "expected ','");
        }
    }
    j->at++;
    return true;
}

bool mimic_json_end(mimic_json *j) {
    if (j->error)
        return false;
    spaces(j);
    return j->at == j->size || fail(j, "expected nothing more");
}

bool mimic_json_whole(mimic_json *j, int64_t *out) {
    if (j->error)
        return false;
    spaces(j);
    size_t first = j->at;
    int64_t value = 0;
    for (; j->at < j->size && j->text[j->at] >= '0' && j->text[j->at] <= '9'; j->at++) {
        if (__builtin_mul_overflow(value, (int64_t)10, &value) ||
            __builtin_add_overflow(value, (int64_t)(j->text[j->at] - '0'), &value))
            return fail(j, "number too large");
    }
    if (j->at == first)
        return fail(j, "expected a whole number");
    if (j->text[first] == '0' && j->at - first > 1)
        return fail(j, "number with a leading zero");
    if (j->at < j->size && memchr(".eE", j->text[j->at], 3))
        return fail(j, "expected a whole number");
    *out = value;
    return true;
}

int mimic_utf8_length(const char *s, size_t left) {
    const uint8_t *u = (const uint8_t *)s;
    if (left == 0)
        return 0;
    if (u[0] < 0x80)
        return 1;
    int n = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
    if (u[0] < 0xc2 || u[0] > 0xf4 || left < (size_t)n)
        return 0;
    for (int i = 1; i < n; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) || /* overlong, surrogate */
        (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
        return 0;
    return n;
}

static size_t put_utf8(char *out, uint32_t c) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[n] | c);
    return (size_t)n;
}

/* The four digits after \u, with `at` behind them; -1 if they are not. */
static int32_t hex4(mimic_json *j) {
    if (j->size - j->at < 4)
        return -1;
    int32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char c = j->text[j->at++];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* One escape, `at` behind the backslash. Its result is never longer than its spelling. */
static bool escape(mimic_json *j, size_t *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = j->at < j->size ? j->text[j->at++] : 0;
    const char *hit = c ? strchr(from, c) : NULL;
    if (hit) {
        j->text[(*out)++] = to[hit - from];
        return true;
    }
    if (c != 'u')
        return fail(j, "unknown escape in a string");
    int32_t u = hex4(j);
    if (u >= 0xd800 && u < 0xdc00 && j->size - j->at >= 6 && j->text[j->at] == '\\' &&
        j->text[j->at + 1] == 'u') {
        j->at += 2;
        int32_t low = hex4(j);
        u = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00) : -1;
    } else if (u >= 0xd800 && u < 0xe000)
        u = -1;
    if (u < 0)
        return fail(j, "wrong \\u escape in a string");
    if (u == 0)
        return fail(j, "zero character in a string");
    *out += put_utf8(j->text + *out, (uint32_t)u);
    return true;
}

char *mimic_json_string(mimic_json *j) {
    if (j->error)
        return NULL;
    spaces(j);
    if (j->at >= j->size || j->text[j->at] != '"') {
        fail(j, "expected a string");
        return NULL;
    }
    size_t out = ++j->at;
    char *start = j->text + out;
    while (j->at < j->size) {
        char c = j->text[j->at];
        if (c == '"') {
            j->at++;
            j->text[out] = 0; /* at the closing quote or before it */
            return start;
        }
        if (c == '\\') {
            j->at++;
            if (!escape(j, &out))
                return NULL;
            continue;
        }
        int n = mimic_utf8_length(j->text + j->at, j->size - j->at);
        if (n == 0 || (uint8_t)c < 0x20) {
            fail(j, n ? "control character in a string" : "a string is not valid UTF-8");
            return NULL;
        }
        for (; n > 0; n--)
            j->text[out++] = j->text[j->at++];
    }
    fail(j, "a string does not end");
    return NULL;
}
