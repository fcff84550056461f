/* @MARK@
 *
 * @TITLE@
 *
 *     uint32_t best = snn_classify(image, SNN_T);
 *
 * There is one network in static memory: call these functions from one thread.
 */
#ifndef SNN_H
#define SNN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SNN_HEIGHT @HEIGHT@
#define SNN_WIDTH @WIDTH@
#define SNN_CHANNELS @CHANNELS@
#define SNN_PIXELS (SNN_HEIGHT * SNN_WIDTH * SNN_CHANNELS)
#define SNN_CLASSES @CLASSES@
#define SNN_LAYERS @LAYERS@
#define SNN_T @T@ /* time steps that the network was exported for; other numbers are allowed */
#define SNN_EARLY_EXIT @EARLY_EXIT@

/* 1 keeps what arrives from the image, which is the same at every step; 0 computes it at every step instead, and saves
 * @KEPT_BYTES@ bytes of RAM. */
#ifndef SNN_KEEP_CURRENT
#define SNN_KEEP_CURRENT 1
#endif

/* Starts with an image of SNN_PIXELS values 0 ... 255 in the order (height, width, channel): red, green and blue of the
 * first pixel come first. Sets every potential to its initial value. */
void snn_reset(const uint8_t *image);

/* Computes one time step of all layers. */
void snn_step(void);

/* The class with the largest potential in the read-out; of equal ones the lowest. */
uint32_t snn_class(void);

/* snn_reset, `steps` times snn_step, snn_class.@EARLY@ */
uint32_t snn_classify(const uint8_t *image, uint32_t steps);

extern uint32_t snn_steps;                    /* since snn_reset */
extern int32_t snn_readout[SNN_CLASSES];      /* potentials of the read-out */
extern uint32_t snn_saturations[SNN_LAYERS];  /* by layer, how often a clip changed a potential since snn_reset */

#ifdef __cplusplus
}
#endif

#endif
