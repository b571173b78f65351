ArraySchedule=LayerShape=Pass=layer_clocks=None
