/* @MARK@
 *
 * One time step of every layer, as the network's contract defines it, for all neurons:
 *
 *     I = sum over connections of 2^exponent * sum of w * in        in: the pixels, or the spikes of the source
 *     u = clip(v + I + b, -(2^23 - 1), 2^23 - 1)
 *     s = 1 where u >= threshold, else 0
 *     v = u - threshold * s (soft reset) or u * (1 - s) (hard reset); v = u in the read-out
 *
 * Only digits that are set cost anything: each of them adds a row of weights. 16-bit halves of words hold the sums of
 * up to 256 rows, so that one addition serves two weights, without special instructions.
 */
#include "network.h"

#include <string.h>

#define LARGEST 8388607 /* 2^23 - 1, the largest potential */
#define EVENTS 256U     /* 256 times 255 fits into 16 bits */
#define HALVES 0x00FF00FFU

uint32_t snn_steps;
uint32_t snn_saturations[SNN_LAYERS];

/* A row of a map: where the weights of the digits begin that are set, and the first of them in each column. */
static uint32_t events[SNN_MOST_INPUTS];
static uint32_t starts[SNN_MOST_COLUMNS + 1];

/* A row of a layer: sums of every position, and what is not added to them yet: halves of words, weights 0 and 2 of each
 * word before 1 and 3, and how many events they hold. */
static snn_sum sums[SNN_MOST_SUMS];
static uint32_t halves[SNN_MOST_SUMS / 2];
static uint32_t held[SNN_MOST_POSITIONS];

static uint32_t counts[SNN_MOST_CHANNELS]; /* of a window */

static const uint32_t bit[32] = {
    0x80000000U, 0x40000000U, 0x20000000U, 0x10000000U, 0x08000000U, 0x04000000U, 0x02000000U, 0x01000000U,
    0x00800000U, 0x00400000U, 0x00200000U, 0x00100000U, 0x00080000U, 0x00040000U, 0x00020000U, 0x00010000U,
    0x00008000U, 0x00004000U, 0x00002000U, 0x00001000U, 0x00000800U, 0x00000400U, 0x00000200U, 0x00000100U,
    0x00000080U, 0x00000040U, 0x00000020U, 0x00000010U, 0x00000008U, 0x00000004U, 0x00000002U, 0x00000001U};

/* Number of zeros above the highest one of a word that is not 0. */
static inline uint32_t leading_zeros(uint32_t word)
{
#if defined(__GNUC__) && __SIZEOF_INT__ == 4
    return (uint32_t)__builtin_clz(word);
#else
    uint32_t zeros = 0;
    while (!(word & 0x80000000U)) {
        word <<= 1;
        zeros++;
    }
    return zeros;
#endif
}

/* Word `index` of a plane, without the bits before `first` and from `last` on. */
static inline uint32_t word_between(const uint32_t *bits, uint32_t index, uint32_t first, uint32_t last)
{
    uint32_t word = bits[index];
    if (index == first / 32U)
        word &= 0xFFFFFFFFU >> (first % 32U);
    if (index == last / 32U)
        word &= ~(0xFFFFFFFFU >> (last % 32U));
    return word;
}

/* Finds the events in a row of a plane: digit (x, channel) has weights from (x * channels + channel) * size on. */
static void find_events(const uint32_t *bits, uint32_t first, uint32_t columns, uint32_t channels, uint32_t size)
{
    uint32_t count = 0;
    for (uint32_t x = 0; x < columns; x++) {
        const uint32_t begin = first + x * channels, end = begin + channels;
        starts[x] = count;
        for (uint32_t index = begin / 32U; 32U * index < end; index++) {
            uint32_t word = word_between(bits, index, begin, end);
            while (word != 0) {
                const uint32_t zeros = leading_zeros(word);
                word ^= 0x80000000U >> zeros;
                events[count++] = (32U * index + zeros - first) * size;
            }
        }
    }
    starts[columns] = count;
}

/* Adds four rows of weights to halves. */
static inline void add_four(uint32_t *restrict even, uint32_t *restrict odd, const uint32_t *restrict a,
                            const uint32_t *restrict b, const uint32_t *restrict c, const uint32_t *restrict d,
                            uint32_t words)
{
    for (uint32_t i = 0; i < words; i++) {
        const uint32_t p = a[i], q = b[i], r = c[i], s = d[i];
        even[i] += (p & HALVES) + (q & HALVES) + (r & HALVES) + (s & HALVES);
        odd[i] += (p >> 8 & HALVES) + (q >> 8 & HALVES) + (r >> 8 & HALVES) + (s >> 8 & HALVES);
    }
}

static inline void add_one(uint32_t *restrict even, uint32_t *restrict odd, const uint32_t *restrict row,
                           uint32_t words)
{
    for (uint32_t i = 0; i < words; i++) {
        even[i] += row[i] & HALVES;
        odd[i] += row[i] >> 8 & HALVES;
    }
}

/* Adds the rows of some events to halves. */
static inline void add_rows(const uint32_t *rows, const uint32_t *event, uint32_t count, uint32_t shift, uint32_t *even,
                            uint32_t words)
{
    uint32_t *odd = even + words;
#if UINTPTR_MAX > 0xFFFFFFFFU /* compilers make vectors of neighbouring words */
    for (; count >= 4U; count -= 4U, event += 4U)
        add_four(even, odd, rows + (event[0] + shift), rows + (event[1] + shift), rows + (event[2] + shift),
                 rows + (event[3] + shift), words);
    for (; count != 0; count--, event++)
        add_one(even, odd, rows + (*event + shift), words);
#else /* eight registers hold the halves of four words, for all events */
    uint32_t i = 0;
    for (; i + 4U <= words; i += 4U) {
        uint32_t e0 = even[i], e1 = even[i + 1U], e2 = even[i + 2U], e3 = even[i + 3U];
        uint32_t o0 = odd[i], o1 = odd[i + 1U], o2 = odd[i + 2U], o3 = odd[i + 3U];
        for (const uint32_t *at = event, *end = event + count; at < end; at++) {
            const uint32_t *row = rows + (*at + shift) + i;
            const uint32_t p = row[0], q = row[1], r = row[2], s = row[3];
            e0 += p & HALVES;
            o0 += p >> 8 & HALVES;
            e1 += q & HALVES;
            o1 += q >> 8 & HALVES;
            e2 += r & HALVES;
            o2 += r >> 8 & HALVES;
            e3 += s & HALVES;
            o3 += s >> 8 & HALVES;
        }
        even[i] = e0, even[i + 1U] = e1, even[i + 2U] = e2, even[i + 3U] = e3;
        odd[i] = o0, odd[i + 1U] = o1, odd[i + 2U] = o2, odd[i + 3U] = o3;
    }
    for (uint32_t at = 0; i < words && at < count; at++)
        add_one(even + i, odd + i, rows + (event[at] + shift) + i, words - i);
#endif
}

/* to[o] += factor * (half of o - offset) */
static void unpack(snn_sum *restrict to, const uint32_t *restrict even, const uint32_t *restrict odd, uint32_t words,
                   int32_t offset, snn_sum factor)
{
    for (uint32_t i = 0; i < words; i++) {
        to[4U * i] += ((int32_t)(even[i] & 0xFFFFU) - offset) * factor;
        to[4U * i + 1U] += ((int32_t)(odd[i] & 0xFFFFU) - offset) * factor;
        to[4U * i + 2U] += ((int32_t)(even[i] >> 16) - offset) * factor;
        to[4U * i + 3U] += ((int32_t)(odd[i] >> 16) - offset) * factor;
    }
}

/* Adds the halves of position x, times `factor`, to its sums. */
static void settle(uint32_t x, uint32_t words, uint32_t stride, snn_sum factor)
{
    uint32_t *even = halves + x * stride / 2U;
    unpack(sums + x * stride, even, even + words, words, 128 * (int32_t)held[x], factor);
    memset(even, 0, sizeof(uint32_t) * 2U * words);
    held[x] = 0;
}

/* Adds events from `first` to `last`, excluded, to position x; `shift` is from their column to the tap that meets it. */
static void add_events(const snn_connection *c, uint32_t first, uint32_t last, uint32_t shift, uint32_t x,
                       uint32_t stride, snn_sum factor)
{
    while (first < last) {
        const uint32_t room = EVENTS - held[x], count = last - first < room ? last - first : room;
        uint32_t *even = halves + x * stride / 2U;
        if (c->row_words == 4U) /* a known number makes faster loops */
            add_rows(c->rows, events + first, count, shift, even, 4U);
        else
            add_rows(c->rows, events + first, count, shift, even, c->row_words);
        first += count;
        held[x] += count;
        if (held[x] == EVENTS)
            settle(x, c->row_words, stride, factor);
    }
}

/* As add_events, for a connection of several groups. */
static void add_grouped(const snn_connection *c, uint32_t first, uint32_t last, uint32_t shift, uint32_t x,
                        uint32_t stride, snn_sum factor)
{
    for (; first < last; first++) {
        const uint32_t row = events[first] + shift;
        const int32_t *weight = c->grouped + row * c->group_outputs;
        snn_sum *to = sums + x * stride + row % (uint32_t)c->source->channels / c->group_inputs * c->group_outputs;
        for (uint32_t o = 0; o < c->group_outputs; o++)
            to[o] += weight[o] * factor;
    }
}

/* Adds the events in a row of the map to a row of the layer, through row ky of the kernel. */
static void add_taps(const snn_layer *layer, const snn_connection *c, int32_t ky, snn_sum factor)
{
    const int32_t columns = c->source->width;
    const uint32_t size = (uint32_t)c->source->channels * c->row_words; /* of the weights of a tap */
    for (int32_t x = 0; x < layer->width; x++) {
        const int32_t left = x * c->stride_x - c->padding_x;
        for (int32_t kx = 0; kx < c->kernel_x; kx++) {
            int32_t from = left + kx * c->dilation_x, to = from + 1;
            if (c->dilation_x == 1) { /* neighbouring taps meet neighbouring columns: all of them at once */
                to = left + c->kernel_x < columns ? left + c->kernel_x : columns;
                from = left < 0 ? 0 : left;
            }
            if (from >= 0 && from < to && to <= columns) {
                const uint32_t shift = (uint32_t)(ky * c->kernel_x + kx - (left + kx * c->dilation_x)) * size;
                (c->grouped != 0 ? add_grouped : add_events)(c, starts[from], starts[to], shift, (uint32_t)x,
                                                             layer->stride, factor);
            }
            if (c->dilation_x == 1)
                break;
        }
    }
}

/* Adds what arrives over a connection at row y of the layer. */
static void add_connection(const snn_layer *layer, const snn_connection *c, int32_t y)
{
    const snn_map *map = c->source;
    for (uint32_t plane = 0; plane < map->planes; plane++) {
        const snn_sum factor = (snn_sum)1 << (c->exponent + plane);
        for (int32_t ky = 0; ky < c->kernel_y; ky++) {
            const int32_t row = y * c->stride_y - c->padding_y + ky * c->dilation_y;
            if (row >= 0 && row < map->height) {
                find_events(map->bits + plane * map->words, (uint32_t)(row * map->width * map->channels),
                            (uint32_t)map->width, (uint32_t)map->channels, c->row_words);
                add_taps(layer, c, ky, factor);
            }
        }
        for (uint32_t x = 0; x < (uint32_t)layer->width; x++)
            if (held[x] != 0)
                settle(x, c->row_words, layer->stride, factor);
    }
}

static void copy_bias(snn_sum *restrict to, const int32_t *restrict bias, uint32_t outputs)
{
    for (uint32_t o = 0; o < outputs; o++)
        to[o] = bias[o];
}

/* Sums of row y before anything arrives. */
static void start_from_bias(const snn_layer *layer, int32_t y)
{
    for (uint32_t x = 0; x < (uint32_t)layer->width; x++) {
        const uint32_t position = (uint32_t)(y * layer->width) + x;
        const uint32_t vector = layer->bias_of == 0 ? 0 : layer->bias_of[position];
        copy_bias(sums + x * layer->stride, layer->bias + vector * layer->outputs, layer->outputs);
    }
}

/* u = clip(total); counts a clip that changes something. */
static inline int32_t clipped(snn_sum total, uint32_t *saturations)
{
    const snn_sum u = total > LARGEST ? LARGEST : total < -LARGEST ? -LARGEST : total;
    *saturations += u != total;
    return (int32_t)u;
}

/* Up to 32 neurons: their spikes, the first in the highest bit. */
static uint32_t fire(int32_t *restrict v, const snn_sum *restrict current, const int32_t *restrict threshold,
                     uint32_t count, int hard_reset, uint32_t *restrict saturations)
{
    uint32_t word = 0, clips = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t u = clipped(v[i] + current[i], &clips);
        const int fires = u >= threshold[i];
        word |= fires ? bit[i] : 0U;
        v[i] = fires ? (hard_reset ? 0 : u - threshold[i]) : u;
    }
    *saturations += clips;
    return word;
}

/* How many of `left` bits, from number `first` on, are in one word. */
static uint32_t in_word(uint32_t first, uint32_t left)
{
    return left < 32U - first % 32U ? left : 32U - first % 32U;
}

/* Writes bits from number `first` on; what follows them in the word is cleared. */
static void put_bits(uint32_t *bits, uint32_t first, uint32_t word)
{
    bits[first / 32U] = (first % 32U == 0 ? 0 : bits[first / 32U]) | word >> first % 32U;
}

/* Advances the neurons of a position by their sums: potentials, spikes and resets. */
static void advance(const snn_layer *layer, uint32_t position, const snn_sum *current, uint32_t *saturations)
{
    const uint32_t first = position * layer->outputs;
    int32_t *v = layer->v + first;
    if (layer->threshold == 0) {
        for (uint32_t o = 0; o < layer->outputs; o++)
            v[o] = clipped(v[o] + current[o], saturations);
        return;
    }
    for (uint32_t o = 0, count = 0; o < layer->outputs; o += count) {
        count = in_word(first + o, layer->outputs - o);
        put_bits(layer->spikes->bits, first + o,
                 fire(v + o, current + o, layer->threshold + o, count, layer->hard_reset, saturations));
    }
}

/* counts = sums over window (y, x) of a map. */
static void count_window(const snn_pool *pool, int32_t y, int32_t x)
{
    const snn_map *from = pool->from;
    const uint32_t channels = (uint32_t)from->channels;
    memset(counts, 0, sizeof(uint32_t) * channels);
    for (uint32_t plane = 0; plane < from->planes; plane++) {
        const uint32_t *bits = from->bits + plane * from->words;
        for (int32_t i = 0; i < pool->height * pool->width; i++) {
            const int32_t row = y * pool->height + i / pool->width, column = x * pool->width + i % pool->width;
            const uint32_t begin = (uint32_t)(row * from->width + column) * channels, end = begin + channels;
            for (uint32_t index = begin / 32U; 32U * index < end; index++) {
                uint32_t word = word_between(bits, index, begin, end);
                while (word != 0) {
                    const uint32_t zeros = leading_zeros(word);
                    word ^= 0x80000000U >> zeros;
                    counts[32U * index + zeros - begin] += 1U << plane;
                }
            }
        }
    }
}

static void sum_windows(const snn_pool *pool)
{
    const snn_map *to = pool->to;
    const uint32_t channels = (uint32_t)to->channels;
    uint32_t first = 0;
    for (int32_t y = 0; y < to->height; y++) {
        for (int32_t x = 0; x < to->width; x++, first += channels) {
            count_window(pool, y, x);
            for (uint32_t c = 0, count = 0; c < channels; c += count) {
                count = in_word(first + c, channels - c);
                for (uint32_t plane = 0; plane < to->planes; plane++) {
                    uint32_t word = 0;
                    for (uint32_t i = 0; i < count; i++)
                        word |= counts[c + i] >> plane & 1U ? bit[i] : 0U;
                    put_bits(to->bits + plane * to->words, first + c, word);
                }
            }
        }
    }
}

static void step_layer(const snn_layer *layer, uint32_t *saturations)
{
    const uint32_t width = (uint32_t)layer->width;
    for (int32_t y = 0; y < layer->height; y++) {
        const uint32_t position = (uint32_t)y * width;
        if (layer->current != 0)
            memcpy(sums, layer->current + position * layer->stride, sizeof(snn_sum) * width * layer->stride);
        else
            start_from_bias(layer, y);
        for (uint32_t i = layer->current != 0 ? layer->image_count : 0; i < layer->count; i++)
            add_connection(layer, layer->connections + i, y);
        for (uint32_t x = 0; x < width; x++)
            advance(layer, position + x, sums + x * layer->stride, saturations);
    }
    for (uint32_t i = 0; i < layer->pool_count; i++)
        sum_windows(layer->pools + i);
}

/* What arrives from the image at every step, with the bias. */
static void keep_current(const snn_layer *layer)
{
    const uint32_t row = (uint32_t)layer->width * layer->stride;
    for (int32_t y = 0; y < layer->height; y++) {
        start_from_bias(layer, y);
        for (uint32_t i = 0; i < layer->image_count; i++)
            add_connection(layer, layer->connections + i, y);
        memcpy(layer->current + (uint32_t)y * row, sums, sizeof(snn_sum) * row);
    }
}

void snn_reset(const uint8_t *image)
{
    memset(snn_image.bits, 0, sizeof(uint32_t) * snn_image.words * snn_image.planes);
    for (uint32_t i = 0; i < SNN_PIXELS; i++)
        for (uint32_t plane = 0; image[i] >> plane != 0; plane++)
            if (image[i] >> plane & 1)
                snn_image.bits[plane * snn_image.words + i / 32U] |= bit[i % 32U];
    for (uint32_t i = 0; i < snn_image_pool_count; i++)
        sum_windows(snn_image_pools + i);
    for (uint32_t i = 0; i < SNN_LAYERS; i++) {
        const snn_layer *layer = snn_layers + i;
        const uint32_t neurons = (uint32_t)(layer->height * layer->width) * layer->outputs;
        for (uint32_t n = 0; n < neurons; n += layer->outputs)
            memcpy(layer->v + n, layer->v0, sizeof(int32_t) * layer->outputs);
        if (layer->current != 0)
            keep_current(layer);
    }
    memset(snn_saturations, 0, sizeof snn_saturations);
    snn_steps = 0;
}

void snn_step(void)
{
    for (uint32_t i = 0; i < SNN_LAYERS; i++)
        step_layer(snn_layers + i, snn_saturations + i);
    snn_steps++;
}

uint32_t snn_class(void)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < SNN_CLASSES; i++)
        if (snn_readout[i] > snn_readout[best])
            best = i;
    return best;
}

#if SNN_EARLY_EXIT
/* Whether the class cannot change in so many further steps. No potential of the read-out can saturate in them, so each
 * is v plus what arrives, and the lead over every other class stays, also where this one wins a tie by its number. */
static int decided(uint32_t steps)
{
    const uint32_t best = snn_class();
    for (uint32_t i = 0; i < SNN_CLASSES; i++) {
        const int64_t v = snn_readout[i], lead = snn_readout[best] - v;
        if ((v < 0 ? -v : v) + (int64_t)steps * snn_reach > LARGEST)
            return 0;
        if (i != best && lead - (int64_t)steps * snn_gain[best][i] < (i < best))
            return 0;
    }
    return 1;
}
#endif

uint32_t snn_classify(const uint8_t *image, uint32_t steps)
{
    snn_reset(image);
    while (snn_steps < steps) {
        snn_step();
#if SNN_EARLY_EXIT
        if (decided(steps - snn_steps))
            break;
#endif
    }
    return snn_class();
}
