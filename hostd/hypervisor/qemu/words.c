#include "hostd/hypervisor/qemu/words.h"

#include <stdio.h>
#include <string.h>

/* "-blockdev {...}: text", "-device X,y=z: text" -> text. */
static const char *after_option(const char *text)
{
    if (text[0] != '-')
        return text;
    const char *blank = strchr(text, ' ');
    const char *end = strstr(text, blank && blank[1] == '{' ? "}: " : ": ");
    return end ? end + (end[0] == '}' ? 3 : 2) : text;
}

/* The node that the option makes; its length, 0: none. */
static int node_of(const char *option, const char *end, const char **name)
{
    static const char key[] = "\"node-name\":\"";
    const char *at = strstr(option, key);
    if (!at || at >= end)
        return 0;
    *name = at + strlen(key);
    return (int)strcspn(*name, "\"");
}

static const char *next_step(const char *text)
{
    static const struct {
        const char *says, *next;
    } known[] = {
        {"Image is not in qcow2 format", "'qemu-img info' says what it is: name that with format="},
        {"Is another process using the image", "a disk that is written to is one VM's alone"},
        {"unable to find CPU model", "'qemu-system-x86_64 -cpu help' lists those that there are"},
        {"unsupported machine type", "'drover cluster cpu' shows the newest that all hosts have"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(text, known[i].says))
            return known[i].next;
    return NULL;
}

void words_explain(const char *line, size_t size, char *out)
{
    static const char program[] = "qemu-system-";
    const char *colon = strncmp(line, program, strlen(program)) == 0 ? strstr(line, ": ") : NULL;
    const char *option = colon ? colon + 2 : line, *text = after_option(option), *node = "", *next = next_step(text);
    int len = node_of(option, text, &node);
    snprintf(out, size, "%.*s%s%s%s%s", len, node, len ? ": " : "", text, next ? "; " : "", next ? next : "");
}
