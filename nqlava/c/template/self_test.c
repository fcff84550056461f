/* @MARK@
 *
 * Runs a few images for @STEPS@ steps and compares every spike and every read-out with what the reference computed, by a
 * digest: the sum over images of SHA-256(network, number, spikes, read-outs).
 */
#include "network.h"

#include <string.h>

#define IMAGES @IMAGES@
#define STEPS @STEPS@
#define SPIKE_BYTES @SPIKE_BYTES@ /* of all layers in a step */

#ifdef SNN_BOARD
void board_print(const char *text);
uint32_t board_instructions(void);
#else
#include <stdio.h>
static void board_print(const char *text)
{
    fputs(text, stdout);
}
#endif

@TABLES@
static uint8_t spikes[STEPS * SPIKE_BYTES + 1]; /* layer by layer, of each all steps */
static uint8_t readouts[STEPS * SNN_CLASSES * 4];
static uint8_t total[32];

/* ---- SHA-256 (FIPS 180-4) ---- */

static uint32_t state[8];
static uint8_t block[64];
static uint32_t filled;
static uint64_t length;

static uint32_t rotated(uint32_t x, uint32_t by)
{
    return x >> by | x << (32U - by);
}

static void compress(void)
{
    static const uint32_t k[64] = {
        0x428a2f98U, 0x71374491U, 0xb5c0fbcfU, 0xe9b5dba5U, 0x3956c25bU, 0x59f111f1U, 0x923f82a4U, 0xab1c5ed5U,
        0xd807aa98U, 0x12835b01U, 0x243185beU, 0x550c7dc3U, 0x72be5d74U, 0x80deb1feU, 0x9bdc06a7U, 0xc19bf174U,
        0xe49b69c1U, 0xefbe4786U, 0x0fc19dc6U, 0x240ca1ccU, 0x2de92c6fU, 0x4a7484aaU, 0x5cb0a9dcU, 0x76f988daU,
        0x983e5152U, 0xa831c66dU, 0xb00327c8U, 0xbf597fc7U, 0xc6e00bf3U, 0xd5a79147U, 0x06ca6351U, 0x14292967U,
        0x27b70a85U, 0x2e1b2138U, 0x4d2c6dfcU, 0x53380d13U, 0x650a7354U, 0x766a0abbU, 0x81c2c92eU, 0x92722c85U,
        0xa2bfe8a1U, 0xa81a664bU, 0xc24b8b70U, 0xc76c51a3U, 0xd192e819U, 0xd6990624U, 0xf40e3585U, 0x106aa070U,
        0x19a4c116U, 0x1e376c08U, 0x2748774cU, 0x34b0bcb5U, 0x391c0cb3U, 0x4ed8aa4aU, 0x5b9cca4fU, 0x682e6ff3U,
        0x748f82eeU, 0x78a5636fU, 0x84c87814U, 0x8cc70208U, 0x90befffaU, 0xa4506cebU, 0xbef9a3f7U, 0xc67178f2U};
    uint32_t w[64], s[8];
    for (uint32_t i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (uint32_t i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, state, sizeof s);
    for (uint32_t i = 0; i < 64; i++) {
        const uint32_t one = s[7] + (rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25)) +
                             ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
        const uint32_t two = (rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22)) +
                             ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof s[0]);
        s[4] += one;
        s[0] = one + two;
    }
    for (uint32_t i = 0; i < 8; i++)
        state[i] += s[i];
    filled = 0;
}

static void hash_start(void)
{
    static const uint32_t initial[8] = {0x6a09e667U, 0xbb67ae85U, 0x3c6ef372U, 0xa54ff53aU,
                                        0x510e527fU, 0x9b05688cU, 0x1f83d9abU, 0x5be0cd19U};
    memcpy(state, initial, sizeof state);
    filled = 0;
    length = 0;
}

static void hash(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        block[filled++] = bytes[i];
        if (filled == 64)
            compress();
    }
    length += 8 * (uint64_t)count;
}

/* Adds the hash, a big-endian number, to the total. */
static void hash_end(void)
{
    const uint64_t bits = length;
    uint8_t last = 0x80;
    uint32_t carry = 0;
    do {
        hash(&last, 1);
        last = 0;
    } while (filled != 56);
    for (uint32_t i = 0; i < 8; i++) {
        last = (uint8_t)(bits >> (56 - 8 * i) & 0xFF);
        hash(&last, 1);
    }
    for (uint32_t i = 32; i-- > 0;) {
        carry += total[i] + (state[i / 4] >> (24 - 8 * (i % 4)) & 0xFF);
        total[i] = (uint8_t)(carry & 0xFF);
        carry >>= 8;
    }
}

/* ---- the test ---- */

/* Keeps the spikes and the read-out of a step. */
static void keep(uint32_t step)
{
    uint8_t *to = spikes;
    for (uint32_t i = 0; i + 1 < SNN_LAYERS; i++) {
        const snn_layer *layer = snn_layers + i;
        const uint32_t bytes = ((uint32_t)(layer->height * layer->width) * layer->outputs + 7) / 8;
        for (uint32_t byte = 0; byte < bytes; byte++)
            to[step * bytes + byte] = (uint8_t)(layer->spikes->bits[byte / 4] >> (24 - 8 * (byte % 4)) & 0xFF);
        to += STEPS * bytes;
    }
    for (uint32_t i = 0; i < 4 * SNN_CLASSES; i++)
        readouts[step * 4 * SNN_CLASSES + i] = (uint8_t)((uint32_t)snn_readout[i / 4] >> (8 * (i % 4)) & 0xFF);
}

static void print_number(uint32_t value)
{
    char text[11];
    uint32_t at = 10;
    text[10] = 0;
    do {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    board_print(text + at);
}

static void print_digest(const uint8_t *bytes)
{
    char text[65];
    for (uint32_t i = 0; i < 64; i++)
        text[i] = "0123456789abcdef"[bytes[i / 2] >> (4 - 4 * (i % 2)) & 15];
    text[64] = 0;
    board_print(text);
}

int main(void)
{
    for (uint32_t image = 0; image < IMAGES; image++) {
        uint8_t number[8] = {0};
        number[0] = (uint8_t)image;
#ifdef SNN_BOARD
        const uint32_t before = board_instructions();
        (void)snn_classify(images[image], STEPS);
        const uint32_t taken = board_instructions() - before;
#endif
        snn_reset(images[image]);
        for (uint32_t step = 0; step < STEPS; step++) {
            snn_step();
            keep(step);
        }
        hash_start();
        hash(network, sizeof network);
        hash(number, sizeof number);
        hash(spikes, STEPS * SPIKE_BYTES);
        hash(readouts, sizeof readouts);
        hash_end();
        board_print("image ");
        print_number(image);
        board_print(": class ");
        print_number(snn_class());
#ifdef SNN_BOARD
        board_print(", instructions ");
        print_number(taken);
#endif
        board_print("\n");
    }
    board_print("digest   ");
    print_digest(total);
    board_print("\nexpected ");
    print_digest(expected);
    const int equal = memcmp(total, expected, sizeof total) == 0;
    board_print(equal ? "\nEXACT: every spike and read-out is equal\n" : "\nNOT EXACT\n");
    return equal ? 0 : 1;
}
