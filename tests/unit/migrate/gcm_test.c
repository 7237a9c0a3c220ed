/* Every implementation gives the bytes of the standard, opens what another sealed, and lets nothing else through. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "migrate/gcm.h"

#define LONG_BYTES 5000u

static const struct gcm_kind *const kinds[] = {
    &gcm_libcrypto,
#ifdef DROVER_IPSEC_MB
    &gcm_vaes,
#endif
};
#define KINDS (sizeof kinds / sizeof *kinds)

static const uint8_t key[GCM_KEY_BYTES] = {9, 8, 7}, nonce[GCM_NONCE_BYTES] = {1, 2, 3};

static void encrypt_in(const struct gcm_kind *kind, const uint8_t *with, const uint8_t *data, size_t len, size_t piece,
    uint8_t *out, uint8_t tag[GCM_TAG_BYTES])
{
    struct iovec pieces[3] = {
        {(void *)(uintptr_t)data, piece}, {NULL, 0}, {(void *)(uintptr_t)(data + piece), len - piece}};
    void *self = kind->open(with);
    kind->encrypt(self, nonce, pieces, 3, out, tag);
    kind->close(self);
}

static bool decrypt(
    const struct gcm_kind *kind, const uint8_t *data, size_t len, const uint8_t tag[GCM_TAG_BYTES], uint8_t *out)
{
    void *self = kind->open(key);
    bool genuine = kind->decrypt(self, nonce, data, len, tag, out);
    kind->close(self);
    return genuine;
}

/* Test cases 13 and 14 of "The Galois/Counter Mode of Operation" (McGrew, Viega): key and nonce of zeros, nothing and
 * one block of zeros. */
static void test_bytes_of_the_standard(void **state)
{
    (void)state;
    static const uint8_t zeros[GCM_KEY_BYTES];
    static const uint8_t empty_tag[] = {
        0x53, 0x0f, 0x8a, 0xfb, 0xc7, 0x45, 0x36, 0xb9, 0xa9, 0x63, 0xb4, 0xf1, 0xc4, 0xcb, 0x73, 0x8b};
    static const uint8_t block[] = {
        0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18};
    static const uint8_t block_tag[] = {
        0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19};
    for (size_t k = 0; k < KINDS; k++) {
        if (!kinds[k]->usable())
            continue;
        uint8_t out[16], tag[GCM_TAG_BYTES];
        void *self = kinds[k]->open(zeros);
        struct iovec piece = {(void *)(uintptr_t)zeros, 0};
        kinds[k]->encrypt(self, zeros, &piece, 1, out, tag);
        assert_memory_equal(tag, empty_tag, sizeof tag);
        piece.iov_len = sizeof block;
        kinds[k]->encrypt(self, zeros, &piece, 1, out, tag);
        assert_memory_equal(out, block, sizeof block);
        assert_memory_equal(tag, block_tag, sizeof tag);
        kinds[k]->close(self);
    }
}

static void fill(uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
}

/* Of any length, in pieces cut anywhere, each opens what each has sealed, also where it lies. */
static void test_all_understand_each_other(void **state)
{
    (void)state;
    uint8_t data[LONG_BYTES], sealed[LONG_BYTES], opened[LONG_BYTES], tag[GCM_TAG_BYTES];
    fill(data, sizeof data);
    for (size_t from = 0; from < KINDS; from++)
        for (size_t to = 0; to < KINDS; to++)
            for (size_t len = 0; len <= LONG_BYTES && kinds[from]->usable() && kinds[to]->usable();
                 len += len < 300 ? 1 : 47) {
                encrypt_in(kinds[from], key, data, len, len / 3, sealed, tag);
                assert_true(decrypt(kinds[to], sealed, len, tag, opened));
                assert_memory_equal(opened, data, len);
                assert_true(decrypt(kinds[to], sealed, len, tag, sealed));
                assert_memory_equal(sealed, data, len);
            }
}

static void test_nothing_else_gets_through(void **state)
{
    (void)state;
    static const uint8_t other[GCM_KEY_BYTES] = {9, 8, 6};
    uint8_t data[300], sealed[300], opened[300], tag[GCM_TAG_BYTES];
    fill(data, sizeof data);
    for (size_t k = 0; k < KINDS; k++) {
        if (!kinds[k]->usable())
            continue;
        encrypt_in(kinds[k], other, data, sizeof data, 100, sealed, tag);
        assert_false(decrypt(kinds[k], sealed, sizeof data, tag, opened));
        encrypt_in(kinds[k], key, data, sizeof data, 100, sealed, tag);
        for (size_t bit = 0; bit < (sizeof sealed + sizeof tag) * 8; bit++) {
            uint8_t *byte = bit / 8 < sizeof sealed ? &sealed[bit / 8] : &tag[bit / 8 - sizeof sealed];
            *byte ^= (uint8_t)(1u << bit % 8);
            assert_false(decrypt(kinds[k], sealed, sizeof data, tag, opened));
            *byte ^= (uint8_t)(1u << bit % 8);
        }
        assert_false(decrypt(kinds[k], sealed, sizeof data - 1, tag, opened));
        assert_true(decrypt(kinds[k], sealed, sizeof data, tag, opened));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_of_the_standard),
        cmocka_unit_test(test_all_understand_each_other),
        cmocka_unit_test(test_nothing_else_gets_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
