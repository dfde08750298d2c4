/* m.image: pictures as objects, single operators, transform programs. Pixel positions count from 0,
 * as in the files that hold them. */
#include "l_mimic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void mimicl_check_err(lua_State *L, mimic_status status, const mimic_err *err) {
    if (status != MIMIC_OK)
        mimicl_error(L, status, "%s", err->text);
}

mimic_image *mimicl_new_image(lua_State *L) {
    return mimicl_new(L, MIMICL_IMAGE, sizeof(mimic_image), 0);
}

static mimic_image *image(lua_State *L, int arg) {
    mimic_image *img = mimicl_check(L, arg, MIMICL_IMAGE);
    if (!img->pixels)
        mimicl_error(L, MIMIC_ESTATE, "the picture is empty: the call that made it failed");
    return img;
}

mimic_filter mimicl_filter(lua_State *L, int t, const char *who) {
    static const char names[] = "bilinear|bicubic";
    const char *name = mimicl_text(L, t, "filter", "bilinear");
    int k = mimicl_choice(names, name, strlen(name));
    if (k < 0)
        mimicl_unknown(L, who, "filter", name, names);
    return k == 1 ? MIMIC_BICUBIC : MIMIC_BILINEAR;
}

/* --- making ------------------------------------------------------------------------- */

static int image_read(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    mimic_err err = {""};
    mimic_image *img = mimicl_new_image(L);
    mimicl_check_err(L, mimic_image_read(path, img, &err), &err);
    return 1;
}

static int image_decode(lua_State *L) {
    size_t size;
    const char *bytes = luaL_checklstring(L, 1, &size);
    const char *name = luaL_optstring(L, 2, "picture in memory");
    mimic_err err = {""};
    mimic_image *img = mimicl_new_image(L);
    mimicl_check_err(L, mimic_image_decode((const uint8_t *)bytes, size, name, img, &err), &err);
    return 1;
}

static int image_from(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_tensor *t = mimicl_tensor(L, 1); /* [H,W,3] u8 */
    const int64_t *shape = mimic_tensor_shape(t);
    if (mimic_tensor_dtype(t) != MIMIC_U8 || mimic_tensor_rank(t) != 3 || shape[2] != 3 ||
        shape[0] < 1 || shape[1] < 1 || shape[0] > INT32_MAX || shape[1] > INT32_MAX) {
        char text[256];
        mimic_tensor_describe(t, text, sizeof text);
        mimicl_error(L, MIMIC_EINVAL, "m.image.from: u8 [H,W,3] expected, got %s", text);
    }
    mimic_err err = {""};
    mimic_image *img = mimicl_new_image(L);
    mimicl_check_err(L, mimic_image_reserve(img, (int)shape[1], (int)shape[0], &err), &err);
    mimicl_ok(L, b, mimic_tensor_read(b->ctx, t, MIMIC_U8, img->pixels, mimic_tensor_count(t)));
    return 1;
}

/* m.image.synth("general"|"face", seed, index, label, size) */
static int image_synth(lua_State *L) {
    const char *kind = luaL_checkstring(L, 1);
    uint64_t seed = mimicl_seed_arg(L, 2);
    uint32_t index = (uint32_t)luaL_checkinteger(L, 3);
    int label = (int)luaL_checkinteger(L, 4), size = (int)luaL_checkinteger(L, 5);
    int k = mimicl_choice("general|face", kind, strlen(kind));
    if (k < 0)
        mimicl_unknown(L, "m.image.synth", "kind", kind, "general|face");
    mimic_err err = {""};
    mimic_image *img = mimicl_new_image(L);
    mimicl_check_err(L,
                     k == 0 ? mimic_synth_general(seed, index, label, size, img, &err)
                            : mimic_synth_face(seed, index, label, size, img, &err),
                     &err);
    return 1;
}

/* --- methods ------------------------------------------------------------------------ */

static int image_mean(lua_State *L) {
    const mimic_image *img = image(L, 1);
    uint64_t sum[3] = {0, 0, 0};
    size_t n = (size_t)img->width * (size_t)img->height;
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++)
            sum[c] += img->pixels[3 * i + (size_t)c];
    for (int c = 0; c < 3; c++)
        lua_pushnumber(L, (double)sum[c] / (double)n);
    return 3;
}

static int image_resize(lua_State *L) {
    const mimic_image *src = image(L, 1);
    mimicl_options(L, 2, "resize", "left|top|w|h|out_w|out_h|filter");
    int left = mimicl_int(L, 2, "left", 0), top = mimicl_int(L, 2, "top", 0);
    int w = mimicl_int(L, 2, "w", (int64_t)src->width - left);
    int h = mimicl_int(L, 2, "h", (int64_t)src->height - top);
    int out_w = mimicl_int(L, 2, "out_w", w), out_h = mimicl_int(L, 2, "out_h", h);
    mimic_filter filter = mimicl_filter(L, 2, "resize");
    mimic_err err = {""};
    mimic_image *img = mimicl_new_image(L);
    mimicl_check_err(L, mimic_image_resize(src, left, top, w, h, out_w, out_h, filter, img, &err),
                     &err);
    return 1;
}

static int image_flip(lua_State *L) {
    mimic_image_flip(image(L, 1));
    lua_settop(L, 1);
    return 1;
}

/* img:augment(name [, a, b, {filter=, fill={r,g,b}}]): in place */
static int image_augment(lua_State *L) {
    mimic_image *img = image(L, 1);
    const char *name = luaL_checkstring(L, 2);
    double a = luaL_optnumber(L, 3, 0), b = luaL_optnumber(L, 4, 0), fill[3] = {0, 0, 0};
    mimic_filter filter = MIMIC_BILINEAR;
    int op = 0;
    while (op < MIMIC_AUG_COUNT && strcmp(mimic_aug_name((mimic_aug)op), name) != 0)
        op++;
    if (op == MIMIC_AUG_COUNT) {
        luaL_Buffer names;
        luaL_buffinit(L, &names);
        for (int i = 0; i < MIMIC_AUG_COUNT; i++) {
            if (i)
                luaL_addchar(&names, '|');
            luaL_addstring(&names, mimic_aug_name((mimic_aug)i));
        }
        luaL_pushresult(&names);
        mimicl_unknown(L, "augment", "operator", name, lua_tostring(L, -1));
    }
    if (!lua_isnoneornil(L, 5)) {
        mimicl_options(L, 5, "augment", "filter|fill");
        filter = mimicl_filter(L, 5, "augment");
        mimicl_numbers(L, 5, "fill", 3, fill);
    }
    uint8_t colour[3];
    for (int c = 0; c < 3; c++)
        colour[c] = (uint8_t)fmin(fmax(fill[c], 0), 255);
    mimic_err err = {""};
    mimicl_check_err(L, mimic_image_augment(img, (mimic_aug)op, a, b, filter, colour, &err), &err);
    lua_settop(L, 1);
    return 1;
}

static int image_tensor(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_image *img = image(L, 1);
    int64_t shape[3] = {img->height, img->width, 3};
    mimic_tensor **slot = mimicl_new_tensor(L);
    mimicl_enter(L, b);
    mimic_status status = mimic_tensor_from(b->ctx, MIMIC_U8, 3, shape, img->pixels, slot);
    if (mimicl_retry(L, b, status))
        status = mimic_tensor_from(b->ctx, MIMIC_U8, 3, shape, img->pixels, slot);
    mimicl_ok(L, b, status);
    return 1;
}

static int image_jpeg(lua_State *L) {
    const mimic_image *img = image(L, 1);
    int quality = (int)luaL_optinteger(L, 2, 90);
    void **block = mimicl_malloced(L);
    uint8_t *data = NULL;
    size_t size = 0;
    mimic_err err = {""};
    mimic_status status = mimic_jpeg_encode(img, quality, &data, &size, &err);
    *block = data;
    mimicl_check_err(L, status, &err);
    lua_pushlstring(L, (const char *)data, size);
    return 1;
}

/* img:png([grey]) -> bytes */
static int image_png(lua_State *L) {
    const mimic_image *img = image(L, 1);
    void **block = mimicl_malloced(L);
    uint8_t *data = NULL;
    size_t size = 0;
    mimic_err err = {""};
    mimic_status status = mimic_png_encode(img, lua_toboolean(L, 2), &data, &size, &err);
    *block = data;
    mimicl_check_err(L, status, &err);
    lua_pushlstring(L, (const char *)data, size);
    return 1;
}

static int image_index(lua_State *L) {
    if (mimicl_method(L))
        return 1;
    const mimic_image *img = lua_touserdata(L, 1);
    const char *key = lua_tostring(L, 2);
    if (key && strcmp(key, "width") == 0)
        lua_pushinteger(L, img->width);
    else if (key && strcmp(key, "height") == 0)
        lua_pushinteger(L, img->height);
    else
        return mimicl_no_field(L, "width|height");
    return 1;
}

static int image_to_string(lua_State *L) {
    const mimic_image *img = lua_touserdata(L, 1);
    lua_pushfstring(L, "image %d x %d", img->width, img->height);
    return 1;
}

static int image_gc(lua_State *L) {
    mimic_image_free(lua_touserdata(L, 1));
    return 0;
}

/* --- transform programs ------------------------------------------------------------- */

static double probability(lua_State *L, int t, const char *key) {
    lua_getfield(L, t, key); /* flip = true reads as 0.5 */
    bool half = lua_type(L, -1) == LUA_TBOOLEAN;
    double v = half ? (lua_toboolean(L, -1) ? 0.5 : 0) : 0;
    lua_pop(L, 1);
    return half ? v : mimicl_number(L, t, key, 0);
}

void mimicl_transform(lua_State *L, int t, mimic_transform *out) {
    static const char who[] = "transform";
    t = lua_absindex(L, t);
    mimicl_options(
        L, t, who,
        "size|pre_resize|crop|resize_short|scale|ratio|filter|flip|jitter|jitter_p|grey_p|"
        "blur_p|blur_sigma|solarize_p|randaugment|erase_p|mean|std");
    memset(out, 0, sizeof *out);
    out->size = mimicl_int(L, t, "size", 0);
    out->pre_resize = mimicl_int(L, t, "pre_resize", 0);
    out->crop = mimicl_boolean(L, t, "crop", false);
    out->resize_short = mimicl_int(L, t, "resize_short", 0);
    mimicl_numbers(L, t, "scale", 2, out->scale);
    mimicl_numbers(L, t, "ratio", 2, out->ratio);
    out->filter = mimicl_filter(L, t, who);
    out->flip = probability(L, t, "flip");
    bool jitter = mimicl_numbers(L, t, "jitter", 4, out->jitter);
    out->jitter_p = mimicl_number(L, t, "jitter_p", jitter ? 1 : 0);
    out->grey_p = mimicl_number(L, t, "grey_p", 0);
    out->blur_p = mimicl_number(L, t, "blur_p", 0);
    mimicl_numbers(L, t, "blur_sigma", 2, out->blur_sigma);
    out->solarize_p = mimicl_number(L, t, "solarize_p", 0);
    if (lua_getfield(L, t, "randaugment") == LUA_TTABLE) {
        mimicl_options(L, -1, "transform.randaugment", "n|m|std");
        out->randaugment_n = mimicl_int(L, -1, "n", 2);
        out->randaugment_m = mimicl_number(L, -1, "m", 9);
        out->randaugment_std = mimicl_number(L, -1, "std", 0.5);
    } else if (lua_toboolean(L, -1)) {
        mimicl_error(L, MIMIC_EINVAL, "transform: randaugment: {n=, m=, std=} expected, got %s",
                     luaL_typename(L, -1));
    }
    lua_pop(L, 1);
    out->erase_p = mimicl_number(L, t, "erase_p", 0);
    mimicl_numbers(L, t, "mean", 3, out->mean);
    mimicl_numbers(L, t, "std", 3, out->std);
    mimic_err err = {""};
    mimicl_check_err(L, mimic_transform_check(out, &err), &err);
}

static int scratch_gc(lua_State *L) {
    mimic_transform_scratch_free(lua_touserdata(L, 1));
    return 0;
}

/* m.image.transform(img, spec [, rng]) -> f32 [3,size,size]; one scratch object lives as upvalue 2
 */
static int image_transform(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_image *img = image(L, 1);
    mimic_transform t;
    mimicl_transform(L, 2, &t);
    mimic_rng fresh, *rng = &fresh;
    if (lua_isnoneornil(L, 3))
        mimic_rng_init(&fresh, mimic_get_seed(b->ctx), 0, mimic_get_step(b->ctx));
    else
        rng = mimicl_rng(L, 3);
    int64_t shape[3] = {3, t.size, t.size};
    mimic_tensor **slot = mimicl_new_tensor(L);
    int at = lua_gettop(L);
    float *pixels = mimicl_buffer(L, (size_t)(3 * t.size) * (size_t)t.size, sizeof *pixels);
    mimic_err err = {""};
    mimicl_check_err(
        L,
        mimic_transform_apply(&t, img, rng, lua_touserdata(L, lua_upvalueindex(2)), pixels, &err),
        &err);
    mimicl_enter(L, b);
    mimicl_ok(L, b, mimic_tensor_from(b->ctx, MIMIC_F32, 3, shape, pixels, slot));
    lua_pushvalue(L, at);
    return 1;
}

/* m.image.crop_box(rng, W, H, scale, ratio) -> left, top, w, h */
static int image_crop_box(lua_State *L) {
    mimic_rng *rng = mimicl_rng(L, 1);
    int width = (int)luaL_checkinteger(L, 2), height = (int)luaL_checkinteger(L, 3);
    double range[2][2] = {{0.08, 1}, {3.0 / 4, 4.0 / 3}};
    for (int k = 0; k < 2; k++) {
        if (lua_isnoneornil(L, 4 + k))
            continue;
        luaL_checktype(L, 4 + k, LUA_TTABLE);
        for (int i = 0; i < 2; i++) {
            lua_geti(L, 4 + k, i + 1);
            range[k][i] = luaL_checknumber(L, -1);
            lua_pop(L, 1);
        }
    }
    luaL_argcheck(L, width > 0, 2, "a positive width expected");
    luaL_argcheck(L, height > 0, 3, "a positive height expected");
    int box[4];
    mimic_crop_draw(rng, width, height, range[0], range[1], &box[0], &box[1], &box[2], &box[3]);
    for (int i = 0; i < 4; i++)
        lua_pushinteger(L, box[i]);
    return 4;
}

static void push_transform(lua_State *L, int b) {
    lua_pushvalue(L, b);
    void *scratch = lua_newuserdatauv(L, sizeof(mimic_transform_scratch), 0);
    memset(scratch, 0, sizeof(mimic_transform_scratch));
    lua_newtable(L);
    lua_pushcfunction(L, scratch_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_pushcclosure(L, image_transform, 2);
}

void mimicl_open_image(lua_State *L, int b) {
    static const luaL_Reg methods[] = {{"mean", image_mean},     {"resize", image_resize},
                                       {"flip", image_flip},     {"augment", image_augment},
                                       {"tensor", image_tensor}, {"jpeg", image_jpeg},
                                       {"png", image_png},       {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__index", image_index},
                                    {"__tostring", image_to_string},
                                    {"__gc", image_gc},
                                    {"__close", image_gc},
                                    {NULL, NULL}};
    static const luaL_Reg functions[] = {{"read", image_read},         {"decode", image_decode},
                                         {"from", image_from},         {"synth", image_synth},
                                         {"crop_box", image_crop_box}, {NULL, NULL}};
    mimicl_class(L, b, MIMICL_IMAGE, "mimic.image", methods, meta);
    lua_newtable(L);
    mimicl_functions(L, b, functions);
    push_transform(L, b);
    lua_setfield(L, -2, "transform");
    lua_pushstring(L, mimic_jpeg_version());
    lua_setfield(L, -2, "jpeg_version");
    lua_setfield(L, -2, "image");
}
