/* Runs images and writes what the network did: compiled behind network.c and snn.c of the network.
 *
 * Reads images from the standard input. Writes for each image, for every step: the spikes of every layer as bytes, the
 * first neuron in the highest bit, and the read-out; then saturations by layer; then, where potentials are asked for,
 * those of every layer. In mode `classes` only the class and the number of steps. Numbers have 32 bits, the lowest byte
 * first.
 */
#include "network.h"

#include <stdio.h>
#include <stdlib.h>

enum { SPIKES, POTENTIALS, CLASSES };

int snn_trace(uint32_t steps, int mode);

static void put(uint32_t value)
{
    for (int i = 0; i < 32; i += 8)
        putchar((int)(value >> i & 0xFF));
}

static uint32_t neurons_of(const snn_layer *layer)
{
    return (uint32_t)(layer->height * layer->width) * layer->outputs;
}

static void put_step(void)
{
    for (uint32_t i = 0; i + 1 < SNN_LAYERS; i++) {
        const snn_map *spikes = snn_layers[i].spikes;
        for (uint32_t byte = 0; byte < (neurons_of(snn_layers + i) + 7) / 8; byte++)
            putchar((int)(spikes->bits[byte / 4] >> (24 - 8 * (byte % 4)) & 0xFF));
    }
    for (uint32_t i = 0; i < SNN_CLASSES; i++)
        put((uint32_t)snn_readout[i]);
}

static void run(const uint8_t *image, uint32_t steps, int mode)
{
    snn_reset(image);
    for (uint32_t step = 0; step < steps; step++) {
        snn_step();
        put_step();
    }
    for (uint32_t i = 0; i < SNN_LAYERS; i++)
        put(snn_saturations[i]);
    for (uint32_t i = 0; mode == POTENTIALS && i + 1 < SNN_LAYERS; i++)
        for (uint32_t n = 0; n < neurons_of(snn_layers + i); n++)
            put((uint32_t)snn_layers[i].v[n]);
}

int snn_trace(uint32_t steps, int mode)
{
    static uint8_t image[SNN_PIXELS];
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        if (mode != CLASSES) {
            run(image, steps, mode);
            continue;
        }
        put(snn_classify(image, steps));
        put(snn_steps);
    }
    return fflush(stdout) == 0 && !ferror(stdin) ? EXIT_SUCCESS : EXIT_FAILURE;
}
