"""Tests the cycle model: single instructions, sequences, and a program.

In this folder: python -m unittest
"""

import unittest

from m4cycles import DISASSEMBLER, Machine, block_cost, find

# Single instructions: code, disassembly, cycles, and additional cycles of a taken branch.
ALONE = [
    ("0868", "ldr r0, [r1]", 2, 0),
    ("0a60", "str r2, [r1]", 1, 0),
    ("ca50", "str r2, [r1, r3]", 2, 0),
    ("d4e90023", "ldrd r2, r3, [r4]", 3, 0),
    ("1cc9", "ldm r1!, {r2, r3, r4}", 4, 0),
    ("0cc1", "stm r1!, {r2, r3}", 3, 0),
    ("30b5", "push {r4, r5, lr}", 4, 0),
    ("30bd", "pop {r4, r5, pc}", 4, 3),
    ("d1f800f0", "ldr.w pc, [r1]", 2, 3),
    ("0431", "adds r1, #4", 1, 0),
    ("4843", "muls r0, r1, r0", 1, 0),
    ("21fb0200", "smlad r0, r1, r2, r0", 1, 0),
    ("51fb1230", "smmlar r0, r1, r2, r3", 1, 0),
    ("2ffa82f3", "sxtb16 r3, r2", 1, 0),
    ("01f30700", "ssat r0, #8, r1", 1, 0),
    ("c1ea0240", "pkhbt r0, r1, r2, lsl #0x10", 1, 0),
    ("90fbf1f0", "sdiv r0, r0, r1", 6, 0),
    ("18bf", "it ne", 1, 0),
    ("bff34f8f", "dsb sy", 3, 0),
    ("eff31080", "mrs r0, primask", 2, 0),
    ("91ed000a", "vldr s0, [r1]", 2, 0),
    ("91ed000b", "vldr d0, [r1]", 3, 0),
    ("2ded048b", "vpush {d8, d9}", 5, 0),
    ("20ee810a", "vmul.f32 s0, s1, s2", 1, 0),
    ("a0ee810a", "vfma.f32 s0, s1, s2", 3, 0),
    ("80ee810a", "vdiv.f32 s0, s1, s2", 14, 0),
    ("fee7", "b #0", 1, 1),
    ("9847", "blx r3", 1, 2),
    ("7047", "bx lr", 1, 2),
    ("dfe800f0", "tbb [pc, r0]", 3, 3),
]

# Sequences: what happens, instructions, total cycles.
SEQUENCES = [
    ("the second load overlaps the first", ["ldr r0, [r1]", "ldr r2, [r1, #4]"], 3),
    ("but not if it needs its result", ["ldr r0, [r1]", "ldr r2, [r0]"], 4),
    ("a store after a load hides its index", ["ldr r0, [r1]", "str r2, [r1, r3]"], 3),
    ("an address that was just computed", ["adds r1, #4", "ldr r0, [r1]"], 4),
    ("an address that was computed earlier", ["adds r1, #4", "nop", "ldr r0, [r1]"], 4),
    ("a stack pointer that was just moved", ["sub sp, #8", "push {r4, r5, lr}"], 6),
]
OTHER_CODE = {"ldr r2, [r1, #4]": "4a68", "ldr r2, [r0]": "0268", "nop": "00bf", "sub sp, #8": "82b0"}

# Calls `step` three times. The addresses follow a vector table of two words.
PROGRAM = bytes.fromhex(
    "00f001f8"  # 08        bl work
    "fee7"  # 0c            b .
    "10b5"  # 0e  work:     push {r4, lr}
    "0324"  # 10            movs r4, #3
    "00f003f8"  # 12  loop: bl step
    "013c"  # 16            subs r4, #1
    "fbd1"  # 18            bne loop
    "10bd"  # 1a            pop {r4, pc}
    "0a20"  # 1c  step:     movs r0, #10
    "0138"  # 1e  count:    subs r0, #1
    "fdd1"  # 20            bne count
    "7047"  # 22            bx lr
)
WORK, STEP = 0x0E, 0x1C
MOVS = SUBS = BNE = BL = 1
# ten rounds, nine of them ended by a taken branch
STEP_COST = (MOVS + 10 * (SUBS + BNE) + 1, MOVS + 10 * SUBS + 9 * (BNE + 1) + BNE + (1 + 2))
# `loop` is a 32-bit instruction off a word boundary: one more cycle each time it is branched to
REST_COST = (1 + MOVS + 3 * (BL + SUBS + BNE) + 1, 3 + MOVS + 3 * (BL + 1 + SUBS) + 2 * (BNE + 1 + 1) + BNE + (3 + 3))


class Cycles(unittest.TestCase):
    def test_instructions_alone(self):
        for code, text, cycles, taken in ALONE:
            with self.subTest(text):
                (instruction,) = DISASSEMBLER.disasm(bytes.fromhex(code), 0)
                self.assertEqual(f"{instruction.mnemonic} {instruction.op_str}", text)
                self.assertEqual(block_cost(bytes.fromhex(code)), (1, cycles, taken))

    def test_sequences(self):
        codes = {text: code for code, text, _, _ in ALONE} | OTHER_CODE
        for name, texts, cycles in SEQUENCES:
            with self.subTest(name):
                code = bytes.fromhex("".join(codes[text] for text in texts))
                instructions = list(DISASSEMBLER.disasm(code, 0))
                self.assertEqual([f"{each.mnemonic} {each.op_str}".strip() for each in instructions], texts)
                self.assertEqual(block_cost(code), (len(texts), cycles, 0))

    def test_a_program_that_runs(self):
        vectors = (0x20001000).to_bytes(4, "little") + (0x08 | 1).to_bytes(4, "little")
        machine = Machine([(0, vectors + PROGRAM)], [(0x20000000, 0)])
        total, steps = machine.count(WORK, STEP)
        self.assertEqual(steps, [STEP_COST] * 3)
        self.assertEqual(total, tuple(rest + 3 * step for rest, step in zip(REST_COST, STEP_COST)))

    def test_functions_are_found_by_either_mangling(self):
        path, hashed = "Memory::run", "17h0123456789abcdefE"
        functions = {
            f"_ZN9skipstone7network6Memory3run{hashed}": 8,
            f"_ZN9skipstone7network6Memory3run28_$u7b$$u7b$closure$u7d$$u7d${hashed}": 16,
            "_RNvMs_NtCs1_9skipstone7networkNtB4_7Memory23run": 24,
        }
        self.assertEqual(find(functions, path), 8)
        self.assertEqual(find({"_RNvMs_NtCs1_9skipstone7networkNtB4_6Memory3run": 32}, path), 32)
        with self.assertRaisesRegex(SystemExit, "0 functions have this name"):
            find({}, path)


if __name__ == "__main__":
    unittest.main()
