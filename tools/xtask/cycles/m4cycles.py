"""Counts the instructions and models the Cortex-M4 cycles of one function in a bare-metal ELF file.

    m4cycles.py ELF --function bench::run [--steps Memory::run]

Runs the program under Unicorn from its reset vector until the function has been called once and has
returned. Prints JSON: the instructions and cycles of the call, and of each call of --steps within it.
The functions must not be inlined. There are no interrupts and no peripherals; their registers read as
zero. A breakpoint (semihosting) before the end is an error.

Instruction counts are exact. An instruction whose IT condition fails counts, as in QEMU and in the core.

Cycles are modelled from the Cortex-M4 Technical Reference Manual, for memory without wait states:

    data processing, multiply, multiply-accumulate, DSP, saturation, IT: 1
    LDR*: 2; 1 directly after a single load that does not feed its address
    STR*: 1; 2 with a register offset, but 1 directly after a single load
    LDRD, STRD, LDM, STM, PUSH, POP, VLDR, VSTR: 1 + words
    if the address depends on the previous instruction, unless that is a load: + 1
    branches: 1; if taken + 1 if direct, + 2 if by register, + 3 if by a load to PC;
        + 1 if the target is a 32-bit instruction that is not word-aligned
    TBB, TBH: 6. UDIV, SDIV: 6 (actually 2 to 12). Barriers: 3. MRS, MSR: 2
    VFP: 1. VMLA, VFMA: 3. VDIV, VSQRT: 14

Flash wait states, bus contention, misaligned accesses and data-dependent division are not modelled, so
the cycles are a lower bound. For convolutional networks, published firmware took 1.15 times as many on
silicon (NUCLEO-L4R5ZI at 120 MHz, code and weights in flash).
"""

import argparse
import json
import re
import sys

from capstone import CS_ARCH_ARM, CS_MODE_MCLASS, CS_MODE_THUMB, Cs
from capstone import arm
from elftools.elf.elffile import ELFFile
from unicorn import UC_ARCH_ARM, UC_HOOK_BLOCK, UC_HOOK_INTR, UC_MODE_MCLASS, UC_MODE_THUMB, Uc, UcError
from unicorn.arm_const import UC_ARM_REG_LR, UC_ARM_REG_PC, UC_ARM_REG_SP, UC_CPU_ARM_CORTEX_M4

# Cycles to refill the pipeline after a taken branch.
DIRECT, REGISTER, LOADED = 1, 2, 3


def ids(names):
    return {getattr(arm, "ARM_INS_" + name) for name in names.split()}


LOADS = ids("LDR LDRB LDRH LDRSB LDRSH LDREX LDREXB LDREXH")
STORES = ids("STR STRB STRH STREX STREXB STREXH")
DOUBLES = ids("LDRD STRD")
LISTS = ids("LDM LDMDB STM STMDB VLDMIA VLDMDB VSTMIA VSTMDB")
STACK_LISTS = ids("PUSH POP VPUSH VPOP")
VSINGLES = ids("VLDR VSTR")
MEMORY = LOADS | STORES | DOUBLES | LISTS | STACK_LISTS | VSINGLES
DIRECT_BRANCHES = ids("B BL CBZ CBNZ")
REGISTER_BRANCHES = ids("BX BLX")
TABLE_BRANCHES = ids("TBB TBH")
BRANCHES = DIRECT_BRANCHES | REGISTER_BRANCHES | TABLE_BRANCHES
# Cycles of instructions that take neither 1 nor a number that depends on their operands.
OTHERS = {
    **dict.fromkeys(ids("SDIV UDIV"), 6),
    **dict.fromkeys(ids("DMB DSB ISB"), 3),
    **dict.fromkeys(ids("MRS MSR"), 2),
    **dict.fromkeys(ids("VMLA VMLS VFMA VFMS VNMLA VNMLS VFNMA VFNMS"), 3),
    **dict.fromkeys(ids("VDIV VSQRT"), 14),
}

DISASSEMBLER = Cs(CS_ARCH_ARM, CS_MODE_THUMB | CS_MODE_MCLASS)
DISASSEMBLER.detail = True


def words(registers):
    """Number of 32-bit words in a list of register operands."""
    return sum(2 if arm.ARM_REG_D0 <= each.reg <= arm.ARM_REG_D31 else 1 for each in registers)


def address_registers(instruction):
    """The registers of a memory access's address, and whether one of them is an index."""
    if instruction.id in STACK_LISTS:
        return {arm.ARM_REG_SP}, False
    if instruction.id in LISTS:
        return {instruction.operands[0].reg}, False
    for operand in instruction.operands:
        if operand.type == arm.ARM_OP_MEM:
            memory = operand.mem
            return {memory.base, memory.index} - {0, arm.ARM_REG_PC}, memory.index != 0
    return set(), False


def block_cost(code, address=0):
    """The instructions and cycles of a basic block, and the additional cycles if it ends in a taken
    branch."""
    instructions = list(DISASSEMBLER.disasm(code, address))
    if sum(each.size for each in instructions) != len(code):
        raise SystemExit(f"undecoded bytes in the {len(code)} bytes of code at {address:#x}")
    cycles, taken = 0, 0
    loaded = None  # register written by the previous instruction, if that is a single load
    computed = set()  # registers written by it, if it is neither a load, a store nor a branch
    for each in instructions:
        kind, written = each.id, set(each.regs_access()[1])
        to_pc = arm.ARM_REG_PC in written
        address, indexed = address_registers(each)
        stall = 1 if address & computed else 0
        after_load = loaded is not None and not address & loaded
        taken = 0
        if kind in LOADS:
            cycles += (1 if after_load and not to_pc else 2) + stall
        elif kind in STORES:
            cycles += (2 if indexed and not after_load else 1) + stall
        elif kind in DOUBLES:
            cycles += 3 + stall
        elif kind in VSINGLES:
            cycles += 1 + words(each.operands[:1]) + stall
        elif kind in LISTS:
            cycles += 1 + words(each.operands[1:]) + stall
        elif kind in STACK_LISTS:
            cycles += 1 + words(each.operands) + stall
        elif kind in TABLE_BRANCHES:
            cycles, taken = cycles + 3, 3
        else:
            cycles += OTHERS.get(kind, 1)
        if kind in DIRECT_BRANCHES:
            taken = DIRECT
        elif to_pc and kind in MEMORY:
            taken = LOADED
        elif kind in REGISTER_BRANCHES or (to_pc and kind not in BRANCHES):
            taken = REGISTER
        loaded = {each.operands[0].reg} if kind in LOADS else None
        computed = set() if kind in MEMORY | BRANCHES else written
    return len(instructions), cycles, taken


class Machine:
    """A Cortex-M4 with the memory of a program."""

    def __init__(self, images, spans):
        """`images` are the (address, bytes) to flash, the lowest of which starts with the vector table;
        `spans` are the (address, length) of memory. The memory from the last span to the stack is added."""
        self.uc = Uc(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS)
        self.uc.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_M4)
        _, head = min(images)
        self.stack, self.entry = (int.from_bytes(head[at : at + 4], "little") for at in (0, 4))
        spans = [*spans, *((address, len(data)) for address, data in images)]
        floor = max(address + size for address, size in spans if address + size <= self.stack)
        pages = set()
        for address, size in [*spans, (floor, self.stack - floor)]:
            pages.update(range(address >> 12, (address + size + 0xFFF) >> 12))
        for page in pages:
            self.uc.mem_map(page << 12, 0x1000)
        for base, size in ((0x40000000, 0x10000000), (0xE0000000, 0x100000)):
            self.uc.mmio_map(base, size, lambda *_: 0, None, lambda *_: None, None)
        for address, data in images:
            self.uc.mem_write(address, data)
        self.costs = {}

    def cost(self, edge):
        """The instructions and cycles of a block, given the block that follows."""
        found = self.costs.get(edge)
        if found is None:
            (address, size), following = edge
            instructions, cycles, taken = block_cost(bytes(self.uc.mem_read(address, size)), address)
            if following != address + size:
                half = int.from_bytes(self.uc.mem_read(following, 2), "little")
                wide = half >> 11 in (0x1D, 0x1E, 0x1F)
                cycles += taken + (1 if wide and following & 2 else 0)
            found = self.costs[edge] = instructions, cycles
        return found

    def count(self, function, steps=None):
        """Runs until `function` has returned. Returns its (instructions, cycles), and those of each call
        of `steps` within it, in order."""
        uc = self.uc
        edges = {}  # number of times that a block followed another, since the last call of end_part
        total, calls = (0, 0), []
        frames = []  # return address and stack pointer of the function and of the current step
        watched = {function, steps}
        previous = None
        failure = "the program ended before the function was called and returned"

        def end_part():
            nonlocal total
            instructions = cycles = 0
            for edge, count in edges.items():
                each = self.cost(edge)
                instructions, cycles = instructions + count * each[0], cycles + count * each[1]
            edges.clear()
            total = total[0] + instructions, total[1] + cycles
            return instructions, cycles

        def on_boundary(address):
            nonlocal failure
            stack = uc.reg_read(UC_ARM_REG_SP)
            if frames and frames[-1] == (address, stack):
                frames.pop()
                part = end_part()
                if frames:
                    calls.append(part)
                else:
                    failure = None
                    uc.emu_stop()
            elif address == (steps if frames else function) and len(frames) < 2:
                if frames:
                    end_part()
                back = uc.reg_read(UC_ARM_REG_LR) & ~1
                frames.append((back, stack))
                watched.add(back)

        def on_block(_uc, address, size, _data):
            nonlocal previous
            if frames:
                edge = previous, address
                edges[edge] = edges.get(edge, 0) + 1
            previous = address, size
            if address in watched:
                on_boundary(address)

        def on_exception(_uc, number, _data):
            nonlocal failure
            failure = f"exception {number} at {uc.reg_read(UC_ARM_REG_PC):#x} before the function returned"
            uc.emu_stop()

        uc.hook_add(UC_HOOK_BLOCK, on_block)
        uc.hook_add(UC_HOOK_INTR, on_exception)
        uc.reg_write(UC_ARM_REG_SP, self.stack)
        try:
            uc.emu_start(self.entry | 1, 0xFFFFFFFE)
        except UcError as error:
            failure = f"{error} at {uc.reg_read(UC_ARM_REG_PC):#x}"
        if failure:
            raise SystemExit(failure)
        return total, calls


def load(path):
    """A machine with the program in its memory, and the addresses of the functions by name."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        segments = [each for each in elf.iter_segments() if each["p_type"] == "PT_LOAD" and each["p_memsz"]]
        images = [(each["p_paddr"], each.data()) for each in segments if each["p_filesz"]]
        spans = [(each["p_vaddr"], each["p_memsz"]) for each in segments]
        symbols = elf.get_section_by_name(".symtab").iter_symbols()
        functions = {each.name: each["st_value"] & ~1 for each in symbols if each["st_info"]["type"] == "STT_FUNC"}
    return Machine(images, spans), functions


def find(functions, path):
    """The address of the function whose Rust path ends in `path`, in either mangling scheme of Rust."""
    mangled = "".join(f"{len(name)}{name}" for name in path.split("::"))
    pattern = re.compile(f".*{mangled}(17h[0-9a-f]{{16}}E)?")
    found = {address for name, address in functions.items() if name == path or pattern.fullmatch(name)}
    if len(found) != 1:
        raise SystemExit(f"{path}: {len(found)} functions have this name, expected 1; was it inlined?")
    return found.pop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("elf")
    parser.add_argument("--function", required=True, help="the function to count, by the end of its Rust path")
    parser.add_argument("--steps", help="a function that it calls, to count each call")
    arguments = parser.parse_args()
    machine, functions = load(arguments.elf)
    steps = find(functions, arguments.steps) if arguments.steps else None
    (instructions, cycles), calls = machine.count(find(functions, arguments.function), steps)
    costs = [{"instructions": each[0], "cycles": each[1]} for each in calls]
    json.dump({"instructions": instructions, "cycles": cycles, "steps": costs}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
