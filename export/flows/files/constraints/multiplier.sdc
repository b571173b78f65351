# A combinational multiplier between registers that cost nothing, or a pipelined one (port clk).
# PERIOD_NS in the environment sets the clock; times in ns.
set period 2.0
if {[info exists ::env(PERIOD_NS)]} { set period $::env(PERIOD_NS) }
set clock_ports [get_ports -quiet clk]
if {[llength $clock_ports]} {
  create_clock -name clk -period $period $clock_ports
} else {
  create_clock -name clk -period $period
}
set_input_delay 0 -clock clk [get_ports {a[*] b[*]}]
set_output_delay 0 -clock clk [get_ports {p[*]}]
set_input_transition 0.04 [get_ports {a[*] b[*]}]
