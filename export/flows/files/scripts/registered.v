// A multiplier between registers: what `make ice40` and `make ecp5` place and route.
// CORE: the module; A_WIDTH, B_WIDTH, P_WIDTH: its ports; STAGES: that of a pipelined one, else undefined.
module registered(clk, a, b, p);
  input clk;
  input [`A_WIDTH-1:0] a;
  input [`B_WIDTH-1:0] b;
  output [`P_WIDTH-1:0] p;

  reg [`A_WIDTH-1:0] a_held;
  reg [`B_WIDTH-1:0] b_held;
  reg [`P_WIDTH-1:0] p;
  wire [`P_WIDTH-1:0] product;

`ifdef STAGES
  `CORE #(.STAGES(`STAGES)) core (.clk(clk), .a(a_held), .b(b_held), .p(product));
`else
  `CORE core (.a(a_held), .b(b_held), .p(product));
`endif

  always @(posedge clk) begin
    a_held <= a;
    b_held <= b;
    p <= product;
  end
endmodule
