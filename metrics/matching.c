/* How many characters difflib.SequenceMatcher matches between texts: its get_matching_blocks, summed.
   metrics/design2code.py defines what is right. Characters are numbers from 0; NONE ends a list of places. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NONE -1
#define LONG 200 /* from this length on characters that make up more than 1 % of b are too popular to begin a match */

typedef struct { const int32_t *letters; int32_t length; } Text;
typedef struct { int32_t a0, a1, b0, b1; } Window;

/* Room for the longest text, and a list of b's places for each character. */
typedef struct { int32_t *count, *first, *next, *run, *run_before; Window *windows; } Room;

static void list_places(Text b, int32_t characters, Room *room) {
    memset(room->count, 0, characters * sizeof *room->count);
    memset(room->first, NONE, characters * sizeof *room->first);
    for (int32_t j = b.length - 1; j >= 0; j--) {
        room->next[j] = room->first[b.letters[j]];
        room->first[b.letters[j]] = j;
        room->count[b.letters[j]]++;
    }
    for (int32_t c = 0; b.length >= LONG && c < characters; c++)
        if (room->count[c] > b.length / 100 + 1) room->first[c] = NONE;
}

/* The longest common part of a[a0:a1] and b[b0:b1], the first in a and then in b among equals. */
static Window longest(Text a, Text b, Window w, Room *room) {
    int32_t i0 = w.a0, j0 = w.b0, size = 0;
    for (int32_t i = w.a0; i < w.a1; i++) {
        for (int32_t j = room->first[a.letters[i]]; j != NONE && j < w.b1; j = room->next[j]) {
            if (j < w.b0) continue;
            int32_t run = 1 + (j > w.b0 ? room->run_before[j - 1] : 0);
            room->run[j] = run;
            if (run > size) i0 = i - run + 1, j0 = j - run + 1, size = run;
        }
        if (i > w.a0)
            for (int32_t j = room->first[a.letters[i - 1]]; j != NONE; j = room->next[j]) room->run_before[j] = 0;
        int32_t *swap = room->run;
        room->run = room->run_before, room->run_before = swap;
    }
    if (w.a1 > w.a0)
        for (int32_t j = room->first[a.letters[w.a1 - 1]]; j != NONE; j = room->next[j]) room->run_before[j] = 0;
    while (i0 > w.a0 && j0 > w.b0 && a.letters[i0 - 1] == b.letters[j0 - 1]) i0--, j0--, size++;
    while (i0 + size < w.a1 && j0 + size < w.b1 && a.letters[i0 + size] == b.letters[j0 + size]) size++;
    return (Window){i0, i0 + size, j0, j0 + size};
}

static int32_t matched(Text a, Text b, Room *room) {
    int32_t total = 0, waiting = 1;
    room->windows[0] = (Window){0, a.length, 0, b.length};
    while (waiting) {
        Window w = room->windows[--waiting], part = longest(a, b, w, room);
        if (part.a0 == part.a1) continue;
        total += part.a1 - part.a0;
        if (w.a0 < part.a0 && w.b0 < part.b0) room->windows[waiting++] = (Window){w.a0, part.a0, w.b0, part.b0};
        if (part.a1 < w.a1 && part.b1 < w.b1) room->windows[waiting++] = (Window){part.a1, w.a1, part.b1, w.b1};
    }
    return total;
}

/* counts (A, B) of the texts a and b, each behind one another; ends: where each of them ends. 0, or 1 without memory. */
int matched_characters(const int32_t *a, const int64_t *a_ends, int32_t A, const int32_t *b, const int64_t *b_ends,
                       int32_t B, int32_t characters, int32_t longest_b, int32_t *counts) {
    size_t places = longest_b + 1;
    int32_t *whole = calloc(2 * characters + 3 * places, sizeof *whole), *rest = whole + 2 * characters;
    Window *windows = malloc(places * sizeof *windows);
    Room room = {whole, whole + characters, rest, rest + places, rest + 2 * places, windows};
    int failed = !whole || !windows;
    for (int32_t j = 0; !failed && j < B; j++) {
        int64_t start = j ? b_ends[j - 1] : 0;
        Text right = {b + start, (int32_t)(b_ends[j] - start)};
        list_places(right, characters, &room);
        for (int32_t i = 0; i < A; i++) {
            int64_t begin = i ? a_ends[i - 1] : 0;
            counts[(int64_t)i * B + j] = matched((Text){a + begin, (int32_t)(a_ends[i] - begin)}, right, &room);
        }
    }
    free(whole), free(windows);
    return failed;
}
