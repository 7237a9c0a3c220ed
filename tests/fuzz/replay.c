/* Runs a fuzzer's entry point over the files of a corpus, and over every beginning of each: what libFuzzer would do
 * with them, for builds without it. */
#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"

#define INPUT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input in memory of exactly its size, for sanitizers to see a read beyond its end. */
static void run(const uint8_t *data, size_t size)
{
    cleanup_free uint8_t *copy = mem_alloc(size);
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
}

static int run_file(const char *path)
{
    struct err err;
    cleanup_buf struct buf input = {0};
    if (file_read(path, INPUT_MAX, &err, &input) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return -1;
    }
    for (size_t size = 0; size <= input.len; size++)
        run(input.data, size);
    for (size_t i = 0; i < input.len; i++) {
        uint8_t kept = input.data[i];
        static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
        for (size_t k = 0; k < sizeof values; k++) {
            input.data[i] = values[k];
            run(input.data, input.len);
        }
        input.data[i] = kept;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    DIR *dir = opendir(argv[1]);
    if (!dir) {
        perror(argv[1]);
        return 1;
    }
    int files = 0, failures = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[PATH_MAX];
        if (entry->d_name[0] == '.' || snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name) >= PATH_MAX)
            continue;
        files++;
        failures += run_file(path) < 0;
    }
    closedir(dir);
    printf("%d inputs\n", files);
    return files == 0 || failures ? 1 : 0;
}
