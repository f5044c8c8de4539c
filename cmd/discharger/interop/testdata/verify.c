/* Verifies one bundle with libmacaroons, as a homeserver in C would.
 *
 *     verify ROOT-KEY ACCESS [DISCHARGE]...
 *
 * The key is in hexadecimal, macaroons are in base64 of the V1 binary format.
 * It accepts every condition and prints them, with whether the signatures are
 * right, as one line of JSON. */

#include <macaroons.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_KEY 64
#define MAX_DISCHARGES 8
#define MAX_CONDITIONS 16

struct conditions {
    size_t count;
    char* text[MAX_CONDITIONS];
};

static void fail(const char* what)
{
    fprintf(stderr, "verify: %s\n", what);
    exit(2);
}

static int note(void* f, const unsigned char* condition, size_t size)
{
    struct conditions* seen = f;
    size_t i;
    if (seen->count == MAX_CONDITIONS) {
        fail("too many conditions");
    }
    for (i = 0; i < size; i++) {
        if (condition[i] < 0x20 || condition[i] > 0x7e || condition[i] == '"' || condition[i] == '\\') {
            fail("a condition would have to be quoted");
        }
    }
    seen->text[seen->count++] = strndup((const char*)condition, size);
    return 0;
}

static size_t read_key(const char* hex, unsigned char* key)
{
    size_t n = strlen(hex) / 2, i;
    if (n > MAX_KEY || strlen(hex) % 2 != 0) {
        fail("the key is not one");
    }
    for (i = 0; i < n; i++) {
        if (sscanf(hex + 2 * i, "%2hhx", &key[i]) != 1) {
            fail("the key is not hexadecimal");
        }
    }
    return n;
}

static struct macaroon* read_macaroon(const char* text)
{
    enum macaroon_returncode err;
    struct macaroon* m = macaroon_deserialize(text, &err);
    if (!m) {
        fail("cannot read a macaroon");
    }
    return m;
}

int main(int argc, char** argv)
{
    unsigned char key[MAX_KEY];
    struct macaroon* discharges[MAX_DISCHARGES];
    struct conditions seen = {0};
    enum macaroon_returncode err;
    size_t key_size, count, i;

    if (argc < 3 || argc - 3 > MAX_DISCHARGES) {
        fail("usage: verify ROOT-KEY ACCESS [DISCHARGE]...");
    }
    key_size = read_key(argv[1], key);
    struct macaroon* access = read_macaroon(argv[2]);
    count = (size_t)argc - 3;
    for (i = 0; i < count; i++) {
        discharges[i] = read_macaroon(argv[3 + i]);
    }
    struct macaroon_verifier* verifier = macaroon_verifier_create();
    if (!verifier || macaroon_verifier_satisfy_general(verifier, note, &seen, &err) != 0) {
        fail("cannot make a verifier");
    }
    int refused = macaroon_verify(verifier, access, key, key_size, discharges, count, &err);
    printf("{\"step\": \"verified\", \"ok\": %s, \"conditions\": [", refused ? "false" : "true");
    for (i = 0; i < seen.count; i++) {
        printf("%s\"%s\"", i > 0 ? ", " : "", seen.text[i]);
    }
    printf("]}\n");
    return 0;
}
