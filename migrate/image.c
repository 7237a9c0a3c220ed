#include "migrate/image.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/crashpoint.h"
#include "base/ensure.h"
#include "base/file.h"
#include "migrate/gcm.h"

/* ---- sealing ---- */

struct image_cipher {
    void *gcm;
    uint8_t sealed[PAGE_BYTES];
};

struct image_cipher *image_cipher_new(const uint8_t key[IMAGE_KEY_BYTES])
{
    struct image_cipher *c = mem_zalloc(sizeof *c);
    c->gcm = gcm_best()->open(key);
    return c;
}

void image_cipher_free(struct image_cipher *c)
{
    if (!c)
        return;
    gcm_best()->close(c->gcm);
    free(c);
}

static void nonce_of(size_t page, uint8_t nonce[static GCM_NONCE_BYTES])
{
    uint64_t number = htole64(page);
    memset(nonce, 0, GCM_NONCE_BYTES);
    memcpy(nonce, &number, sizeof number);
}

void image_tag(struct image_cipher *c, size_t page, const uint8_t *content, uint8_t tag[static IMAGE_TAG_BYTES])
{
    uint8_t nonce[GCM_NONCE_BYTES];
    const struct iovec piece = {(void *)(uintptr_t)content, PAGE_BYTES};
    nonce_of(page, nonce);
    gcm_best()->encrypt(c->gcm, nonce, &piece, 1, c->sealed, tag);
    tag[0] |= image_tag_is_zero(tag); /* zero means that there is no page; reading such a page fails, which is fine */
}

bool image_tag_is_zero(const uint8_t tag[static IMAGE_TAG_BYTES])
{
    static const uint8_t none[IMAGE_TAG_BYTES];
    return memcmp(tag, none, sizeof none) == 0;
}

/* ---- keeping ---- */

struct keeping {
    const struct ram *ram;
    int fd;
    struct image_cipher *cipher;
    uint64_t written_bytes, max_bytes;
    uint8_t content[IMAGE_RUN_PAGES * PAGE_BYTES];
    uint8_t tags[IMAGE_RUN_PAGES * IMAGE_TAG_BYTES];
};

static off_t tag_at(uint64_t ram_bytes, size_t page)
{
    return (off_t)(ram_bytes + page * IMAGE_TAG_BYTES);
}

static int write_at(int fd, const void *data, size_t len, off_t at, struct err *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, (const char *)data + done, len - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno == ENOSPC ? ERR_CAPACITY : ERR_INTERNAL, errno, "cannot write an image of RAM");
        done += (size_t)n;
    }
    return 0;
}

static int keep_run(struct keeping *k, size_t first, size_t count, struct err *err)
{
    if (ram_read(k->ram, first, count, err, k->content) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        uint8_t *tag = k->tags + i * IMAGE_TAG_BYTES;
        const uint8_t *content = k->content + i * PAGE_BYTES;
        memset(tag, 0, IMAGE_TAG_BYTES);
        if (page_is_zero(content))
            continue;
        image_tag(k->cipher, first + i, content, tag);
        if (write_at(k->fd, k->cipher->sealed, PAGE_BYTES, (off_t)((first + i) * PAGE_BYTES), err) < 0)
            return -1;
        k->written_bytes += PAGE_BYTES + IMAGE_TAG_BYTES;
    }
    if (k->written_bytes > k->max_bytes)
        return err_set(err, ERR_CAPACITY, "an image of RAM would be larger than the %llu bytes there are for it",
            (unsigned long long)k->max_bytes);
    if (write_at(k->fd, k->tags, count * IMAGE_TAG_BYTES, tag_at(k->ram->bytes, first), err) < 0)
        return -1;
    return ram_punch(k->ram, first, count, err); /* the guest lives elsewhere, and others need the memory */
}

static int keep_all(struct keeping *k, struct err *err)
{
    if (ftruncate(k->fd, tag_at(k->ram->bytes, k->ram->pages)) < 0)
        return err_errno(err, ERR_CAPACITY, errno, "cannot make an image of RAM that long");
    for (size_t first = 0, end = 0;;) {
        if (ram_allocated_run(k->ram, end, k->ram->pages, err, &first, &end) < 0)
            return -1;
        if (first == end)
            return 0;
        end = first + IMAGE_RUN_PAGES < end ? first + IMAGE_RUN_PAGES : end;
        if (keep_run(k, first, end - first, err) < 0)
            return -1;
    }
}

/* From here on the image has a name; with the key it is one. */
static int keep_name(const char *partial, const char *path, const char *key_path, const uint8_t *key, struct err *err)
{
    if (unlink(key_path) < 0 && errno != ENOENT)
        return err_errno(err, ERR_INTERNAL, errno, "cannot remove the old key %s", key_path);
    if (rename(partial, path) < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot name the image %s", path);
    crashpoint("keep", "named");
    return file_write(key_path, key, IMAGE_KEY_BYTES, 0600, err);
}

int image_keep(const struct ram *ram, const char *path, const char *key_path, uint64_t max_bytes, struct err *err)
{
    char partial[512];
    uint8_t key[IMAGE_KEY_BYTES];
    if (snprintf(partial, sizeof partial, "%s.%d.partial", path, (int)getpid()) >= (int)sizeof partial)
        return err_set(err, ERR_INVALID, "path of the image is too long: %s", path);
    int fd = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, ERR_INTERNAL, errno, "cannot make %s", partial);
    crashpoint("keep", "begun");
    ENSURE(RAND_bytes(key, sizeof key) == 1);
    struct keeping *k = mem_zalloc(sizeof *k);
    *k = (struct keeping){.ram = ram, .fd = fd, .cipher = image_cipher_new(key), .max_bytes = max_bytes};
    int rc = keep_all(k, err);
    crashpoint("keep", "sealed");
    if (rc == 0)
        rc = keep_name(partial, path, key_path, key, err);
    crashpoint("keep", "keyed");
    if (rc < 0) {
        unlink(partial);
        unlink(key_path); /* nor is an older one there any more: this guest has moved on since */
        unlink(path);
    }
    close(fd);
    image_cipher_free(k->cipher);
    explicit_bzero(k->content, sizeof k->content);
    free(k);
    explicit_bzero(key, sizeof key);
    return rc;
}

/* ---- reading ---- */

struct image {
    int fd;
    uint64_t ram_bytes;
    size_t pages;
    uint8_t key[IMAGE_KEY_BYTES];
    char path[256], key_path[256];
};

int image_open(const char *path, const char *key_path, uint64_t ram_bytes, struct err *err, struct image **out)
{
    cleanup_buf struct buf key = {0};
    struct stat st;
    if (strlen(path) >= sizeof(*out)->path || strlen(key_path) >= sizeof(*out)->key_path)
        return err_set(err, ERR_INVALID, "path of the image is too long: %s", path);
    if (file_read(key_path, IMAGE_KEY_BYTES, err, &key) < 0)
        return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ERR_NOT_FOUND, errno, "cannot open the image %s", path);
    size_t pages = (size_t)(ram_bytes / PAGE_BYTES);
    if (key.len != IMAGE_KEY_BYTES || fstat(fd, &st) < 0 || st.st_size != tag_at(ram_bytes, pages)) {
        close(fd);
        return err_set(err, ERR_NOT_FOUND, "%s is no image of %llu bytes of RAM", path, (unsigned long long)ram_bytes);
    }
    struct image *image = mem_zalloc(sizeof *image);
    *image = (struct image){.fd = fd, .ram_bytes = ram_bytes, .pages = pages};
    memcpy(image->key, key.data, sizeof image->key);
    explicit_bzero(key.data, key.len);
    strcpy(image->path, path);
    strcpy(image->key_path, key_path);
    *out = image;
    return 0;
}

void image_close(struct image *image)
{
    if (!image)
        return;
    close(image->fd);
    explicit_bzero(image->key, sizeof image->key);
    free(image);
}

const uint8_t *image_key(const struct image *image)
{
    return image->key;
}

static int read_at(const struct image *image, void *out, size_t len, off_t at, struct err *err)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pread(image->fd, (char *)out + done, len - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_errno(err, ERR_INTERNAL, n < 0 ? errno : EIO, "cannot read the image %s", image->path);
        done += (size_t)n;
    }
    return 0;
}

int image_tags(const struct image *image, size_t max, struct err *err, size_t *page, uint8_t *out)
{
    if (*page >= image->pages)
        return 0;
    off_t data = lseek(image->fd, tag_at(image->ram_bytes, *page), SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? 0 : err_errno(err, ERR_INTERNAL, errno, "cannot seek in the image %s", image->path);
    size_t first = (size_t)((uint64_t)data - image->ram_bytes) / IMAGE_TAG_BYTES;
    size_t count = image->pages - first < max ? image->pages - first : max;
    if (read_at(image, out, count * IMAGE_TAG_BYTES, tag_at(image->ram_bytes, first), err) < 0)
        return -1;
    *page = first;
    return (int)count;
}

/* `out` holds what was sealed, and then what that was. */
static bool page_open(struct image_cipher *cipher, size_t page, const uint8_t *tag, uint8_t *out)
{
    uint8_t nonce[GCM_NONCE_BYTES];
    nonce_of(page, nonce);
    return gcm_best()->decrypt(cipher->gcm, nonce, out, PAGE_BYTES, tag, out);
}

int image_read(
    const struct image *image, struct image_cipher *cipher, size_t first, size_t pages, struct err *err, uint8_t *out)
{
    uint8_t tags[IMAGE_RUN_PAGES * IMAGE_TAG_BYTES];
    size_t done = 0;
    ENSURE(pages <= IMAGE_RUN_PAGES);
    if (first > image->pages || pages > image->pages - first)
        return err_set(err, ERR_PROTOCOL, "the image of RAM ends before page %zu", first + pages - 1);
    if (read_at(image, out, pages * PAGE_BYTES, (off_t)(first * PAGE_BYTES), err) == 0 &&
        read_at(image, tags, pages * IMAGE_TAG_BYTES, tag_at(image->ram_bytes, first), err) == 0)
        while (done < pages && page_open(cipher, first + done, tags + done * IMAGE_TAG_BYTES, out + done * PAGE_BYTES))
            done++;
    if (done == pages)
        return 0;
    /* Without it the next try goes well. */
    unlink(image->key_path);
    unlink(image->path);
    return err_set(err, ERR_CORRUPT,
        "page %zu of what was kept of this guest's last visit is damaged or cannot be read; that is removed, so try "
        "again",
        first + done);
}
