def tell(what, value, bar, met):
    print(f"  {what:<9} {value}   bar {bar}: {'met' if met else 'not met'}")
def main(): pass
