// Which instruction set the CPU kernels use.
#pragma once

namespace torchext::cpu {

/// Levels are cumulative; a level includes its extensions where present (VNNI and VBMI under
/// avx512).
enum class Isa : int { ref = 0, avx2 = 1, avx512 = 2 };

/// What this processor offers: avx2 needs avx2+fma+bmi2+f16c, avx512 needs f+bw+dq+vl on top.
Isa best_isa() noexcept;

/// Whether the avx512 level may use VNNI and VBMI instructions here.
bool has_vnni_vbmi() noexcept;

/// The level in use: best_isa() unless TORCHEXT_ISA or force_isa lowered it.
Isa active_isa() noexcept;

/// Switches the level in this process (tests); false and no change if the processor lacks it.
bool force_isa(Isa isa) noexcept;

const char* isa_name(Isa isa) noexcept;

/// The level for a value of TORCHEXT_ISA (null: not set): it may lower `best`, never raise it.
Isa isa_for(const char* wanted, Isa best) noexcept;

/// Parses "ref", "avx2" or "avx512"; false if it is none of them.
bool parse_isa(const char* name, Isa* isa) noexcept;

}  // namespace torchext::cpu
