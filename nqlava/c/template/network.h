/* @MARK@
 *
 * How network.c describes the network to snn.c. A program needs snn.h alone.
 */
#ifndef SNN_NETWORK_H
#define SNN_NETWORK_H

#include "snn.h"

/* Largest sizes: values and columns in a row of a map; sums and positions in a row of a layer; pooled channels. */
#define SNN_MOST_INPUTS @MOST_INPUTS@
#define SNN_MOST_COLUMNS @MOST_COLUMNS@
#define SNN_MOST_SUMS @MOST_SUMS@
#define SNN_MOST_POSITIONS @MOST_POSITIONS@
#define SNN_MOST_CHANNELS @MOST_CHANNELS@

/* Holds v + I + b of every layer, for any image: proved from weights, exponents and biases. */
typedef @SUM@ snn_sum;
/* Number of a bias vector. */
typedef @INDEX@ snn_index;

/* A map of whole numbers (height, width, channels) as binary digits. Plane k has the digits of 2^k, a bit for each
 * number, the first in the highest bit of a word. Spikes are one plane, and the image is eight. */
typedef struct {
    uint32_t *bits;
    uint32_t words; /* of a plane */
    uint32_t planes;
    int32_t height, width, channels;
} snn_map;

/* Sums over windows of a map: average pooling, whose division is in the weights behind it. */
typedef struct {
    const snn_map *from, *to;
    int32_t height, width; /* of a window */
} snn_pool;

/* Synapses: a convolution of a map. A dense connection is one with a single output position. */
typedef struct {
    const snn_map *source;
    int32_t kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
    uint32_t exponent;
    /* One group: for each tap (y, x) and input channel a row of weights to all outputs, four of them in a word, the
     * first in the lowest byte, each plus 128, filled up with weights of 0 (128). */
    const uint32_t *rows;
    uint32_t row_words;
    /* Several groups: for each tap and input channel the weights to the outputs of its group; row_words is 1. */
    const int32_t *grouped;
    uint32_t group_inputs, group_outputs;
} snn_connection;

typedef struct {
    const char *name;
    int32_t height, width;
    uint32_t outputs; /* channels */
    uint32_t stride;  /* of the sums of neighbouring positions: outputs, in whole words of weights */
    const snn_connection *connections;
    uint32_t count;
    uint32_t image_count; /* how many of the connections, from the first, take the image */
    snn_sum *current;     /* what these add up to, with the bias: the same at every step; 0 to compute it each time */
    const int32_t *bias;  /* vectors of all outputs */
    const snn_index *bias_of; /* which of them a position takes; 0 where there is one */
    const int32_t *threshold; /* 0 for the read-out */
    const int32_t *v0;
    int hard_reset;
    int32_t *v;           /* potentials (height, width, outputs) */
    const snn_map *spikes; /* 0 for the read-out */
    const snn_pool *pools; /* of the spikes */
    uint32_t pool_count;
} snn_layer;

#if SNN_KEEP_CURRENT
#define SNN_CURRENT(buffer) buffer
#else
#define SNN_CURRENT(buffer) 0
#endif

extern const snn_map snn_image;
extern const snn_pool snn_image_pools[];
extern const uint32_t snn_image_pool_count;
extern const snn_layer snn_layers[SNN_LAYERS];

#if SNN_EARLY_EXIT
/* [a][b]: by how much class b can gain on class a in a step, at most, whatever the spikes; both up to 2^25. */
extern const int32_t snn_gain[SNN_CLASSES][SNN_CLASSES];
/* How much a potential of the read-out can change in a step, at most. */
extern const int32_t snn_reach;
#endif

#endif
