/* @MARK@
 *
 * Start-up of a Cortex-M for QEMU's machine mps2-an500 (Cortex-M7): text through semihosting, and a timer that counts
 * instructions. Another board needs its own: vectors, memory (board.ld), and something to print or blink with.
 */
#include <stdint.h>
#include <string.h>

#define TIMER ((volatile uint32_t *)0x40000000) /* counts down at 25 MHz */
#define INSTRUCTIONS 40U /* per tick, with -icount shift=0: an instruction takes 1 ns */

extern uint32_t data_in_flash[], data_start[], data_end[], bss_start[], bss_end[], stack_end[];
int main(void);
void board_print(const char *text);
uint32_t board_instructions(void);
void board_start(void);

static uint32_t semihosting(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void board_print(const char *text)
{
    (void)semihosting(0x04, text);
}

uint32_t board_instructions(void)
{
    return INSTRUCTIONS * (0xFFFFFFFFU - TIMER[1]);
}

static void finish(uint32_t status)
{
    const uint32_t arguments[2] = {0x20026, status};
    for (;;)
        (void)semihosting(0x20, arguments);
}

static void fault(void)
{
    board_print("fault\n");
    finish(3);
}

void board_start(void)
{
    memcpy(data_start, data_in_flash, (uintptr_t)data_end - (uintptr_t)data_start);
    memset(bss_start, 0, (uintptr_t)bss_end - (uintptr_t)bss_start);
    TIMER[2] = 0xFFFFFFFFU; /* reload */
    TIMER[1] = 0xFFFFFFFFU; /* value */
    TIMER[0] = 1;           /* on */
    finish((uint32_t)main());
}

typedef void (*handler)(void);
__attribute__((section(".vectors"), used)) static const handler vectors[15] = {
    board_start, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault};
