# OpenSTA: timing and power of build/asic/$MODULE.v, against a clock of $PERIOD_NS.
set module $::env(MODULE)
read_liberty build/asic/cells.lib
read_verilog build/asic/$module.v
link_design $module
set_cmd_units -time ns -capacitance fF -power W
source constraints/multiplier.sdc
report_checks -path_delay max -digits 4
report_wns
# Without recorded activity every input toggles in one clock of ten; OpenSTA before 3 gives timing alone.
if {[lindex [split [sta::version] .] 0] >= 3} {
  set_power_activity -input -activity 0.1 -duty 0.5
  report_power -digits 6
} else {
  puts "power: needs OpenSTA 3 or newer, this is [sta::version]"
}
